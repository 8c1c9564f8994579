#include "tests/bench/pth_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "millrace/io/crc32.h"
#include "millrace/io/pickler.h"
#include "millrace/io/pth_layout.h"

namespace millrace::bench {
namespace {

pickle::Value tensor(const std::string& key, std::size_t bytes) {
  const auto count = static_cast<std::int64_t>(bytes / 4);
  return pickle::make_tensor({.storage_key = key,
                              .dtype = DType::kFloat32,
                              .storage_numel = count,
                              .offset = 0,
                              .sizes = {count},
                              .strides = {1}});
}

}  // namespace

std::vector<std::byte> random_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::mt19937_64 random(size);
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const std::uint64_t value = random();
    std::copy_n(reinterpret_cast<const std::byte*>(&value), 8, bytes.begin() + i);
  }
  return bytes;
}

void write_source(Storage& storage, const std::string& name, std::size_t mib) {
  const std::size_t weights = mib << 20;
  const std::vector<std::vector<std::byte>> data = {random_bytes(weights),
                                                    random_bytes(2 * weights)};
  pickle::Value root = pickle::Value::dict(), state = pickle::Value::ordered_dict();
  state.set("weight", tensor("0", weights));
  root.set("meta", pickle::Value::dict());
  root.set("state_dict", std::move(state));
  root.set("optimizer", tensor("1", 2 * weights));
  const PthLayout layout(std::vector<std::uint64_t>{weights, 2 * weights});
  const std::vector<std::uint32_t> crcs = {crc32(data[0]), crc32(data[1])};
  std::vector<std::byte> file(layout.storages_end());
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::span<std::byte> whole(file);
    layout.write_header(
        i, whole.subspan(layout.header_offset(i), layout.data_offset(i) - layout.header_offset(i)));
    std::copy(data[i].begin(), data[i].end(),
              file.begin() + static_cast<std::ptrdiff_t>(layout.data_offset(i)));
    layout.write_descriptor(i, crcs[i],
                            whole.subspan(layout.data_end(i), PthLayout::kDescriptorBytes));
  }
  const auto tail = layout.make_tail(crcs, pickle::pickle(root), {});
  file.insert(file.end(), tail.begin(), tail.end());
  BytesImage image(file);
  storage.commit(name, image);
}

void drop_cache(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

}  // namespace millrace::bench
