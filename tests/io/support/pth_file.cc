#include "tests/io/support/pth_file.h"

#include "millrace/io/crc32.h"
#include "millrace/io/pickler.h"
#include "millrace/io/state_record.h"

namespace millrace::test {

using pickle::make_tensor;
using pickle::Value;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

std::vector<std::byte> make_file_of_pickle(const std::vector<std::byte>& data_pkl,
                                           const std::vector<std::vector<std::byte>>& storages,
                                           const std::vector<PthLayout::NamedBytes>& extra) {
  std::vector<std::uint64_t> sizes;
  std::vector<std::uint32_t> crcs;
  for (const auto& storage : storages) {
    sizes.push_back(storage.size());
    crcs.push_back(crc32(storage));
  }
  const PthLayout layout(sizes);
  std::vector<std::byte> file(layout.storages_end());
  for (std::size_t i = 0; i < storages.size(); ++i) {
    const auto room = [&](std::uint64_t first, std::uint64_t last) {
      return std::span(file).subspan(first, last - first);
    };
    layout.write_header(i, room(layout.header_offset(i), layout.data_offset(i)));
    layout.write_descriptor(i, crcs[i], room(layout.data_end(i), layout.end_offset(i)));
    std::copy(storages[i].begin(), storages[i].end(),
              file.begin() + static_cast<std::ptrdiff_t>(layout.data_offset(i)));
  }
  const auto tail = layout.make_tail(crcs, data_pkl, extra);
  file.insert(file.end(), tail.begin(), tail.end());
  return file;
}

std::vector<std::byte> make_file(const Value& root,
                                 const std::vector<std::vector<std::byte>>& storages,
                                 const std::vector<PthLayout::NamedBytes>& extra) {
  return make_file_of_pickle(pickle::pickle(root), storages, extra);
}

Result<std::vector<std::byte>> read_content(std::vector<std::byte> file, PthLimits limits) {
  auto reader = PthReader::open(in_memory(std::move(file)), limits);
  if (!reader) return reader.fault();
  const auto verified = reader->verify();
  if (!verified) return verified.fault();
  std::vector<std::byte> content = pickle::pickle(reader->root());
  for (const std::string& key : reader->storage_keys()) {
    std::vector<std::byte> storage(*reader->storage_size(key));
    const auto read = reader->read_storage(key, storage);
    if (!read) return read.fault();
    const auto name = bytes_of(key + ":");
    content.insert(content.end(), name.begin(), name.end());
    content.insert(content.end(), storage.begin(), storage.end());
  }
  const auto state = reader->entry("millrace/state");
  if (!state) return state.fault();
  if (state.value()) content.insert(content.end(), state.value()->begin(), state.value()->end());
  return content;
}

std::vector<std::byte> small_file() {
  Value state = Value::ordered_dict();
  state.set("weight", make_tensor({"0", DType::kFloat32, 4, 0, {2, 2}, {2, 1}, true}));
  state.set("column", make_tensor({"0", DType::kFloat32, 4, 1, {2}, {2}, false}));
  state.set("steps", make_tensor({"1", DType::kInt64, 1, 0, {}, {}, false}));
  set_attribute(state, "_metadata", Value::ordered_dict());
  Value root = Value::dict();
  root.set("state_dict", state);
  root.set("meta", Value::list({1, 2.5, "text", Value(), true}));
  StateRecord record;
  record.identity.save_id = "00112233445566778899aabbccddeeff";
  record.sections["rng"] = "seed";
  return make_file(root, {bytes_of("0123456789abcdef"), bytes_of("ABCDEFGH")},
                   {{"millrace/state", encode_state_record(record)}});
}

}  // namespace millrace::test
