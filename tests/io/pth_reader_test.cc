#include "millrace/io/pth_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/io/pickler.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/io/support/pth_file.h"
#include "tests/io/support/zip_builder.h"

namespace millrace {
namespace {

using namespace std::string_literals;
using pickle::make_tensor;
using pickle::Value;
using test::build_zip;
using test::bytes_of;
using test::read_content;
using test::ZipPart;
using testing::HasSubstr;

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A pickle with one float tensor of four elements in storage 0.
std::string four_floats() {
  return text_of(
      pickle::pickle(Value::list({make_tensor({"0", DType::kFloat32, 4, 0, {4}, {1}, false})})));
}
const std::string kData = "0123456789abcdef";

std::vector<ZipPart> good_parts() {
  return {{.name = "m/data.pkl", .content = four_floats()},
          {.name = "m/byteorder", .content = "little"},
          {.name = "m/data/0", .content = kData},
          {.name = "m/version", .content = "3\n"}};
}

Result<PthReader> open(std::vector<std::byte> bytes) {
  return PthReader::open(test::in_memory(std::move(bytes)));
}

TEST(PthReader, ReadsItsOwnFile) {
  const auto reader = open(test::small_file());
  ASSERT_TRUE(reader.ok()) << reader.fault().text();
  const Value& state = *reader.value().root().find("state_dict");
  EXPECT_TRUE(pickle::as_tensor(*state.find("weight"))->requires_grad);
  EXPECT_NE(attribute(state, "_metadata"), nullptr);
  EXPECT_TRUE(reader.value().entry("millrace/state").value().has_value());
  EXPECT_FALSE(reader.value().entry("absent").value().has_value());
  EXPECT_EQ(reader.value().storage_size("9"), std::nullopt);
  std::vector<std::byte> room(3);
  EXPECT_FALSE(reader.value().read_storage("9", room).ok());
  EXPECT_THROW((void)reader.value().read_storage("0", room), std::logic_error);
}

TEST(PthReader, ReadsTheZipsOfOthers) {
  const auto plain = read_content(build_zip(good_parts()));
  ASSERT_TRUE(plain.ok()) << plain.fault().text();
  const std::pair<const char*, void (*)(ZipPart&)> forms[] = {
      {"descriptors", [](ZipPart& part) { part.descriptor = true; }},
      {"deflated", [](ZipPart& part) { part.deflate = true; }},
      {"deflated with descriptors", [](ZipPart& part) { part.deflate = part.descriptor = true; }},
      {"zip64", [](ZipPart& part) { part.zip64 = true; }},
      {"zip64 descriptors", [](ZipPart& part) { part.zip64 = part.descriptor = true; }},
      {"descriptors without signature",
       [](ZipPart& part) { part.descriptor = true, part.descriptor_signature = false; }},
      {"deflated with zip64 descriptors without signature",
       [](ZipPart& part) {
         part.deflate = part.zip64 = part.descriptor = true, part.descriptor_signature = false;
       }},
      {"descriptors without checksums",
       [](ZipPart& part) { part.descriptor = true, part.crc = 0; }},
      {"no checksums", [](ZipPart& part) { part.crc = 0; }},
      {"UTF-8 flag", [](ZipPart& part) { part.flags = 0x800; }},
  };
  for (const auto& [name, change] : forms) {
    for (const test::ZipShape& shape : {test::ZipShape{}, test::ZipShape{.zip64_end = true},
                                        test::ZipShape{.comment = "hello"}}) {
      auto parts = good_parts();
      for (ZipPart& part : parts) change(part);
      const auto content = read_content(build_zip(parts, shape));
      ASSERT_TRUE(content.ok()) << name << ": " << content.fault().text();
      EXPECT_EQ(content.value(), plain.value()) << name;
    }
  }
}

// PyTorch sets flag bit 3 for every entry and writes no descriptor behind an empty one.
TEST(PthReader, AnEmptyEntryNeedsNoDescriptor) {
  auto parts = good_parts();
  parts.push_back({.name = "m/data/1", .descriptor = true, .no_descriptor = true, .crc = 0});
  parts.push_back({.name = "m/millrace/state", .content = "x"});
  const auto content = read_content(build_zip(parts));
  EXPECT_TRUE(content.ok()) << content.fault().text();
}

TEST(PthReader, ADeflatedStorageHasNoOffset) {
  auto parts = good_parts();
  parts[2].content = std::string(1'000'000, 'x');
  parts[0].content = text_of(
      pickle::pickle(make_tensor({"0", DType::kUInt8, 1'000'000, 0, {1'000'000}, {1}, false})));
  for (ZipPart& part : parts) part.deflate = true;
  const auto reader = open(build_zip(parts));
  ASSERT_TRUE(reader.ok()) << reader.fault().text();
  EXPECT_EQ(reader.value().storage_offset("0"), 0U);
  std::vector<std::byte> out(1'000'000);
  ASSERT_TRUE(reader.value().read_storage("0", out).ok());
  EXPECT_EQ(text_of(out), parts[2].content);
}

TEST(PthReader, AFolderBeforeTheCheckpointIsNoRoot) {
  auto parts = good_parts();
  parts.insert(parts.begin(), ZipPart{.name = "__MACOSX/x", .content = "junk"});
  EXPECT_TRUE(read_content(build_zip(parts)).ok());
}

struct Damage {
  const char* name;
  void (*change)(std::vector<ZipPart>&, test::ZipShape&);
  Fault::Kind kind = Fault::Kind::corrupt;
};

TEST(PthReader, HostileZipsAreFaultsWithinTheirMemory) {
  using Parts = std::vector<ZipPart>&;
  using Shape = test::ZipShape&;
  const Damage cases[] = {
      {"storage smaller than its tensor", [](Parts p, Shape) { p[2].content.pop_back(); }},
      {"storage larger than its tensor", [](Parts p, Shape) { p[2].content += "x"; }},
      {"storage missing", [](Parts p, Shape) { p.erase(p.begin() + 2); }},
      {"duplicate name", [](Parts p, Shape) { p.push_back(p[2]); }},
      {"overlapping entries", [](Parts p, Shape) { p[2].header_offset = 0; }},
      {"entry inside another", [](Parts p, Shape) { p[3].header_offset = 40; }},
      {"entry past the end", [](Parts p, Shape) { p[2].header_offset = 0x7FFFFFFF; }},
      {"size past the end", [](Parts p, Shape) { p[2].size = p[2].stored_size = 0x7FFFFFFF; }},
      {"size of 2^63",
       [](Parts p, Shape) { p[2].zip64 = true, p[2].size = p[2].stored_size = 1ULL << 63; }},
      {"size that overflows",
       [](Parts p, Shape) { p[2].zip64 = true, p[2].size = p[2].stored_size = ~0ULL - 10; }},
      {"two sizes of a stored entry", [](Parts p, Shape) { p[2].size = 15; }},
      {"wrong checksum", [](Parts p, Shape) { p[2].crc = 1; }},
      {"wrong checksum in the descriptor",
       [](Parts p, Shape) { p[2].descriptor = true, p[2].descriptor_crc = 1; }},
      {"wrong size in the descriptor",
       [](Parts p, Shape) { p[2].descriptor = true, p[2].descriptor_size = 15; }},
      {"wrong stored size in the descriptor",
       [](Parts p, Shape) { p[2].deflate = p[2].descriptor = true, p[2].descriptor_stored = 15; }},
      {"size beyond 32 bits in the descriptor",
       [](Parts p, Shape) {
         p[2].zip64 = p[2].descriptor = true, p[2].descriptor_size = 16 | 1ULL << 40;
       }},
      {"no descriptor", [](Parts p, Shape) { p[2].descriptor = p[2].no_descriptor = true; }},
      {"local name differs", [](Parts p, Shape) { p[2].local_name = "m/data/1"; }},
      {"encrypted", [](Parts p, Shape) { p[2].flags = 1; }},
      {"unknown compression", [](Parts p, Shape) { p[2].method = 12; }},
      {"deflate that is none", [](Parts p, Shape) { p[2].method = 8; }},
      {"deflated size too small", [](Parts p, Shape) { p[2].deflate = true, p[2].size = 15; }},
      {"deflated size too large", [](Parts p, Shape) { p[2].deflate = true, p[2].size = 17; }},
      {"deflated size absurd",
       [](Parts p, Shape) { p[2].deflate = p[2].zip64 = true, p[2].size = 1ULL << 60; }},
      {"more entries than the directory holds", [](Parts, Shape s) { s.entries = 5; }},
      {"fewer entries than the directory holds", [](Parts, Shape s) { s.entries = 3; }},
      {"65,000 entries", [](Parts, Shape s) { s.entries = 65'000; }},
      {"2^62 entries", [](Parts, Shape s) { s.zip64_end = true, s.entries = 1ULL << 62; },
       Fault::Kind::limit},
      {"directory elsewhere", [](Parts, Shape s) { s.directory_offset = 10; }},
      {"directory of 2^62 bytes",
       [](Parts, Shape s) { s.zip64_end = true, s.directory_size = 1ULL << 62; }},
      {"big-endian", [](Parts p, Shape) { p[1].content = "big"; }, Fault::Kind::foreign},
      {"odd byte order", [](Parts p, Shape) { p[1].content = "middle"; }},
      {"pickle cut", [](Parts p, Shape) { p[0].content.pop_back(); }},
      {"pickle bomb",
       [](Parts p, Shape) {
         p[0].content = "\x80\x02" + std::string(20'000'000, 'N');
         p[0].deflate = true;
       },
       Fault::Kind::limit},
      {"pickle bomb that lies about its size",
       [](Parts p, Shape) {
         p[0].content = "\x80\x02" + std::string(20'000'000, 'N');
         p[0].deflate = true, p[0].size = 1'000;
       }},
  };
  for (const Damage& each : cases) {
    auto parts = good_parts();
    test::ZipShape shape;
    each.change(parts, shape);
    auto file = build_zip(parts, shape);
    const std::size_t size = file.size();
    const auto object = test::in_memory(std::move(file));
    const test::AllocationMeter meter;
    auto reader = PthReader::open(object);
    std::optional<Fault> fault;
    if (!reader) {
      fault = reader.fault();
    } else if (auto verified = reader->verify(); !verified) {
      fault = verified.fault();
    }
    // Pieces of 256 KiB for each of the two passes of an inflated entry, zlib's own window besides.
    EXPECT_LE(meter.peak(), 600 * size + (std::size_t{1} << 20)) << each.name;
    ASSERT_TRUE(fault.has_value()) << each.name;
    EXPECT_EQ(fault->kind, each.kind) << each.name << ": " << fault->text();
  }
}

struct Tensor {
  const char* name;
  pickle::TensorRef tensor;
};

TEST(PthReader, HostileTensorsAreFaults) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const Tensor cases[] = {
      {"past the storage", {"0", DType::kFloat32, 4, 1, {4}, {1}, false}},
      {"negative stride", {"0", DType::kFloat32, 4, 3, {4}, {-1}, false}},
      {"negative offset", {"0", DType::kFloat32, 4, -4, {4}, {1}, false}},
      {"offset overflow", {"0", DType::kFloat32, 4, kHuge, {4}, {kHuge}, false}},
      {"claims more than the entry", {"0", DType::kFloat32, 5, 0, {5}, {1}, false}},
      {"bytes overflow", {"0", DType::kFloat64, kHuge / 4, 0, {1}, {1}, false}},
      {"other element size", {"0", DType::kFloat64, 4, 0, {4}, {1}, false}},
      {"no such storage", {"1", DType::kFloat32, 4, 0, {4}, {1}, false}},
  };
  for (const Tensor& each : cases) {
    const auto file = test::make_file(make_tensor(each.tensor), {bytes_of(kData)});
    EXPECT_FALSE(read_content(file).ok()) << each.name;
  }
}

TEST(PthReader, OurZeroChecksumIsNotAMissingOne) {
  auto parts = good_parts();
  for (ZipPart& part : parts) part.crc = 0;
  EXPECT_TRUE(read_content(build_zip(parts)).ok());
  parts.push_back({.name = "m/millrace/state", .content = "x"});
  EXPECT_FALSE(read_content(build_zip(parts)).ok());
}

struct Stranger {
  std::string bytes;
  const char* says;
};

TEST(PthReader, ForeignFilesAreNamed) {
  const auto zip = [](const std::string& name) {
    return text_of(build_zip({{.name = name, .content = "x"}}));
  };
  auto script = good_parts();
  script.push_back({.name = "m/constants.pkl", .content = "x"});
  const Stranger cases[] = {
      {"", "an empty file"},
      {"\x89PNG\r\n\x1a\n....", "a PNG image"},
      {"hello there\n", "a text file"},
      {"<!DOCTYPE html><html>", "a web page"},
      {"{\"a\": 1}", "a JSON file"},
      {"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"},
      {"\x1f\x8b\x08", "gzip"},
      {std::string(4'096, '\0'), "zeros"},
      {"\x40\0\0\0\0\0\0\0{\"w\":{}}"s, "a safetensors file"},
      {"\x01\x02\x03\x04", "an unknown format"},
      {zip("[Content_Types].xml"), "an Office document"},
      {zip("arr_0.npy"), "a NumPy .npz archive"},
      {zip("readme"), "a zip archive"},
      {text_of(build_zip({})), ""},
      {text_of(build_zip(script)), "a TorchScript archive"},
      {"\x80\x02]q\x00."s, "a plain Python pickle"},
      {"\x80\x04\x95\x02\0\0\0\0\0\0\0]\x94."s, "a plain Python pickle"},
  };
  for (const Stranger& each : cases) {
    const auto reader = open(bytes_of(each.bytes));
    ASSERT_FALSE(reader.ok());
    EXPECT_EQ(reader.fault().kind, Fault::Kind::foreign) << reader.fault().text();
    EXPECT_THAT(reader.fault().what, HasSubstr(each.says));
  }
}

TEST(PthReader, EveryTruncationIsAFault) {
  const auto file = test::small_file();
  for (std::size_t size = 0; size < file.size(); ++size) {
    const auto content = read_content({file.begin(), file.begin() + static_cast<long>(size)});
    ASSERT_FALSE(content.ok()) << size;
    EXPECT_EQ(content.fault().kind, size == 0 ? Fault::Kind::foreign : Fault::Kind::truncated)
        << size;
  }
}

TEST(PthReader, EveryFlippedBitIsAFaultOrChangesNothing) {
  const auto file = test::small_file();
  const auto truth = read_content(file);
  ASSERT_TRUE(truth.ok()) << truth.fault().text();
  std::size_t harmless = 0;
  for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
    auto changed = file;
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const auto content = read_content(changed);
    if (!content) continue;
    ASSERT_EQ(content.value(), truth.value()) << "bit " << bit;
    ++harmless;
  }
  // Times, versions, attributes, padding; everything else must be noticed.
  EXPECT_LT(harmless, file.size() * 8 * 2 / 5);
}

TEST(PthReader, EveryFlippedBitOfADescriptorIsAFault) {
  const std::vector<std::uint64_t> sizes{16, 8};  // those of small_file()
  const PthLayout layout(sizes);
  const auto file = test::small_file();
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    for (std::size_t bit = layout.data_end(i) * 8; bit < layout.end_offset(i) * 8; ++bit) {
      auto changed = file;
      changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
      EXPECT_FALSE(read_content(changed).ok()) << "storage " << i << ", bit " << bit;
    }
  }
}

// Laid out by hand from the format's description; tests/python reads files that torch itself wrote.
std::string legacy_file(const std::string& numel, const std::string& data,
                        const std::string& little = "\x88") {
  const auto pickled = [](const std::string& body) { return "\x80\x02" + body + "."; };
  return pickled("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") + pickled("M\xe9\x03") +
         pickled("}(X\x10\0\0\0protocol_versionM\xe9\x03X\x0d\0\0\0little_endian"s + little + "u") +
         pickled(
             "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
             "X\x03\0\0\0abcX\x03\0\0\0cpuK\x04NtQK\0K\x04\x85K\x01\x85\x89"
             "ccollections\nOrderedDict\n)RtR"s) +
         pickled("](X\x03\0\0\0abce"s) + numel + data;
}
const std::string kFour = "\4\0\0\0\0\0\0\0"s;

TEST(PthReaderLegacy, ReadsTensors) {
  const auto reader = open(bytes_of(legacy_file(kFour, kData)));
  ASSERT_TRUE(reader.ok()) << reader.fault().text();
  EXPECT_EQ(pickle::as_tensor(reader.value().root())->storage_key, "abc");
  EXPECT_EQ(reader.value().storage_size("abc"), 16U);
  std::vector<std::byte> out(16);
  ASSERT_TRUE(reader.value().read_storage("abc", out).ok());
  EXPECT_EQ(text_of(out), kData);
  EXPECT_TRUE(reader.value().verify().ok());
  EXPECT_FALSE(reader.value().entry("millrace/state").value().has_value());
  // The sixth part of the persistent id is gone, so that a zip file can hold it.
  EXPECT_TRUE(read_content(test::make_file_of_pickle(
                               pickle::pickle(reader.value().root(), {{"abc", "0"}}), {out}))
                  .ok());
}

TEST(PthReaderLegacy, EveryTruncationIsAFault) {
  const std::string file = legacy_file(kFour, kData);
  for (std::size_t size = 1; size < file.size(); ++size) {
    const auto reader = open(bytes_of(file.substr(0, size)));
    ASSERT_FALSE(reader.ok()) << size;
    EXPECT_EQ(reader.fault().kind, size > 1 ? Fault::Kind::truncated : Fault::Kind::foreign)
        << size;
  }
}

TEST(PthReaderLegacy, HostileFilesAreFaults) {
  EXPECT_EQ(open(bytes_of(legacy_file(kFour, kData, "\x89"))).fault().kind, Fault::Kind::foreign);
  EXPECT_EQ(open(bytes_of(legacy_file("\5\0\0\0\0\0\0\0"s, kData))).fault().kind,
            Fault::Kind::corrupt);
  EXPECT_EQ(open(bytes_of(legacy_file("\xff\xff\xff\xff\xff\xff\xff\xff", kData))).fault().kind,
            Fault::Kind::corrupt);
  EXPECT_EQ(open(bytes_of(legacy_file(kFour, kData + "x"))).fault().kind, Fault::Kind::corrupt);
}

}  // namespace
}  // namespace millrace
