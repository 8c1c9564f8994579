// The C++ side of tests/python/pth_interop.py.
//
//   pth_tool write FILE       a file with every dtype and shape that has its own rules
//   pth_tool reemit IN OUT    reads IN and writes what it says as a new file
//   pth_tool dump FILE        prints the tree
//   pth_tool publish FILE KEY...   publishes beside FILE and prints the new name
//
// Exit 0, or 1 with the fault on standard error.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "millrace/io/local_storage.h"
#include "millrace/io/pickle_walk.h"
#include "millrace/io/pickler.h"
#include "millrace/io/publish.h"
#include "millrace/io/state_record.h"
#include "tests/io/support/pth_file.h"

namespace {

using namespace millrace;
using pickle::make_tensor;
using pickle::Value;

std::vector<std::byte> load(const char* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error(std::string("cannot open ") + path);
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void store(const char* path, const std::vector<std::byte>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error(std::string("cannot write ") + path);
}

template <class T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(result.fault().text());
  return std::move(result).value();
}

// Twelve elements of a dtype whose values Python can compute: 0..11, or i % 2 for bool.
std::vector<std::byte> elements(DType dtype) {
  std::vector<std::byte> bytes(12 * dtype_size(dtype));
  const auto fill = [&]<class T>(T, std::size_t step) {
    for (std::size_t i = 0; i < 12; ++i) {
      const T value = static_cast<T>(i);
      std::memcpy(bytes.data() + i * step, &value, sizeof value);
    }
  };
  switch (dtype) {
    case DType::kFloat32:
      fill(float{}, 4);
      break;
    case DType::kFloat64:
      fill(double{}, 8);
      break;
    case DType::kInt64:
      fill(std::int64_t{}, 8);
      break;
    case DType::kInt32:
      fill(std::int32_t{}, 4);
      break;
    case DType::kInt16:
      fill(std::int16_t{}, 2);
      break;
    case DType::kInt8:
      fill(std::int8_t{}, 1);
      break;
    case DType::kUInt8:
      fill(std::uint8_t{}, 1);
      break;
    case DType::kBool:
      for (std::size_t i = 1; i < 12; i += 2) bytes[i] = std::byte{1};
      break;
    case DType::kComplex64:
      fill(float{}, 8);
      break;
    case DType::kComplex128:
      fill(double{}, 16);
      break;
    case DType::kFloat16: {
      const std::uint16_t halves[12] = {0,      0x3c00, 0x4000, 0x4200, 0x4400, 0x4500,
                                        0x4600, 0x4700, 0x4800, 0x4880, 0x4900, 0x4980};
      std::memcpy(bytes.data(), halves, sizeof halves);
      break;
    }
    case DType::kBFloat16:
      for (std::size_t i = 0; i < 12; ++i) {
        const float value = static_cast<float>(i);
        std::memcpy(bytes.data() + 2 * i, reinterpret_cast<const char*>(&value) + 2, 2);
      }
  }
  return bytes;
}

Value every_plain_value() {
  Value shared = Value::list({1, 2});
  Value plain = Value::dict();
  plain.set("none", Value());
  plain.set("bools", Value::tuple({true, false}));
  Value ints = Value::list();
  for (std::int64_t i : {0LL, 255LL, 256LL, 65535LL, 65536LL, 2147483647LL, 2147483648LL, -1LL,
                         -2147483648LL, -2147483649LL, 9223372036854775807LL}) {
    ints.append(i);
  }
  ints.append(std::numeric_limits<std::int64_t>::min());
  plain.set("ints", ints);
  plain.set("big", Value(Value::Data(pickle::BigInt{std::string(8, '\0') + "\x01"})));
  plain.set("floats", Value::list({0.5, -0.0, 1e300}));
  plain.set("text", "na\xc3\xafve \xf0\x9f\x9a\x80 \n");
  plain.set("bytes", Value(Value::Data(pickle::Bytes{std::string("\0\x7f\x80\xff", 4)})));
  auto set = std::make_shared<pickle::Set>();
  set->items = {1, 2};
  plain.set("set", Value(Value::Data(set)));
  plain.set("shared", Value::list({shared, shared}));
  plain.set("tuples", Value::list({Value::tuple({}), Value::tuple({1}), Value::tuple({1, 2}),
                                   Value::tuple({1, 2, 3}), Value::tuple({1, 2, 3, 4})}));
  plain.set(7, "integer key");
  return plain;
}

void write(const char* path) {
  std::vector<std::vector<std::byte>> storages;
  Value tensors = Value::ordered_dict();
  for (int i = 0; i <= static_cast<int>(DType::kComplex128); ++i) {
    const auto dtype = static_cast<DType>(i);
    tensors.set(dtype_name(dtype),
                make_tensor({std::to_string(i), dtype, 12, 0, {3, 4}, {4, 1}, false}));
    storages.push_back(elements(dtype));
  }
  tensors.set("transposed", make_tensor({"0", DType::kFloat32, 12, 0, {4, 3}, {1, 4}, false}));
  tensors.set("tail", make_tensor({"0", DType::kFloat32, 12, 8, {4}, {1}, false}));
  tensors.set("scalar", make_tensor({"0", DType::kFloat32, 12, 5, {}, {}, false}));
  tensors.set("grad", make_tensor({"0", DType::kFloat32, 12, 0, {12}, {1}, true}));
  const std::string none = std::to_string(storages.size());
  tensors.set("empty", make_tensor({none, DType::kFloat32, 0, 0, {0, 3}, {3, 1}, false}));
  storages.emplace_back();
  Value metadata = Value::ordered_dict(), version = Value::dict();
  version.set("version", 1);
  metadata.set("", version);
  set_attribute(tensors, "_metadata", metadata);
  Value root = Value::dict();
  root.set("tensors", tensors);
  root.set("plain", every_plain_value());
  StateRecord record;
  record.identity.save_id = new_save_id();
  store(path, test::make_file(root, storages, {{"millrace/state", encode_state_record(record)}}));
}

void reemit(const char* from, const char* to) {
  const auto reader = need(PthReader::open(test::in_memory(load(from))));
  need(reader.verify());
  pickle::StorageNames names;
  std::vector<std::vector<std::byte>> storages;
  for (const std::string& key : pickle::storage_order(reader.root())) {
    names[key] = std::to_string(storages.size());
    storages.emplace_back(reader.storage_size(key).value());
    need(reader.read_storage(key, storages.back()));
  }
  store(to, test::make_file_of_pickle(pickle::pickle(reader.root(), names), storages));
}

void publish(const std::filesystem::path& path, const std::vector<std::string>& keys) {
  LocalStorage storage(path.parent_path());
  const PublishedCheckpoint published = publish_checkpoint(storage, path.filename().string(), keys);
  std::puts(published.name.c_str());
}

int run(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "write" && argc == 3) {
    write(argv[2]);
  } else if (command == "reemit" && argc == 4) {
    reemit(argv[2], argv[3]);
  } else if (command == "dump" && argc == 3) {
    const auto reader = need(PthReader::open(test::in_memory(load(argv[2]))));
    std::puts(describe(reader.root(), 100'000).c_str());
  } else if (command == "publish" && argc >= 4) {
    publish(argv[2], {argv + 3, argv + argc});
  } else {
    std::fputs("usage: pth_tool write FILE | reemit IN OUT | dump FILE | publish FILE KEY...\n",
               stderr);
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
