#include "millrace/io/pth_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "millrace/io/pickler.h"
#include "millrace/io/zip_format.h"
#include "tests/io/support/pth_file.h"

namespace millrace {
namespace {

using pickle::make_tensor;
using pickle::Value;

TEST(PthLayout, StoragesAreAlignedAndInOrder) {
  const std::vector<std::uint64_t> sizes{1, 0, 63, 64, 65, 0, 4'096, 1};
  const PthLayout layout(sizes);
  ASSERT_EQ(layout.storages(), sizes.size());
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(layout.header_offset(i), end);
    EXPECT_EQ(layout.data_offset(i) % PthLayout::kAlignment, 0U);
    EXPECT_GT(layout.data_offset(i), layout.header_offset(i));
    EXPECT_LT(layout.data_offset(i) - layout.header_offset(i), 30U + 20U + 20U + 4U + 64U);
    EXPECT_EQ(layout.data_size(i), sizes[i]);
    EXPECT_EQ(layout.data_end(i), layout.data_offset(i) + sizes[i]);
    end = layout.data_end(i) + PthLayout::kDescriptorBytes;
    EXPECT_EQ(layout.end_offset(i), end);
  }
  EXPECT_EQ(layout.storages_end(), end);
}

TEST(PthLayout, TailSizeIsThatOfTheTail) {
  const std::vector<std::vector<std::uint64_t>> layouts{{},
                                                        {0},
                                                        {1, 2, 3},
                                                        std::vector<std::uint64_t>(3'000, 24),
                                                        {5'000'000'000, 16, 5'000'000'000}};
  for (const auto& sizes : layouts) {
    const PthLayout layout(sizes);
    for (const std::size_t pickle_size : {0UL, 1UL, 777UL, 100'000UL}) {
      for (const std::size_t extras : {0UL, 1UL, 3UL}) {
        std::vector<PthLayout::NamedBytes> extra;
        for (std::size_t i = 0; i < extras; ++i) {
          extra.emplace_back("extra/" + std::to_string(i), std::vector<std::byte>(i * 7));
        }
        const std::vector<std::uint32_t> crcs(sizes.size(), 0xDEADBEEF);
        EXPECT_EQ(layout.make_tail(crcs, std::vector<std::byte>(pickle_size), extra).size(),
                  layout.tail_size(pickle_size, extra));
      }
    }
  }
}

TEST(PthLayout, FilesReadBack) {
  for (const std::size_t count : {0UL, 1UL, 2'500UL}) {
    std::vector<std::vector<std::byte>> storages;
    Value root = Value::list();
    for (std::size_t i = 0; i < count; ++i) {
      const auto numel = static_cast<std::int64_t>(i % 5);
      storages.emplace_back(i % 5, static_cast<std::byte>(i));
      root.append(make_tensor({std::to_string(i), DType::kUInt8, numel, 0, {numel}, {1}, false}));
    }
    const auto reader = PthReader::open(test::in_memory(test::make_file(root, storages)));
    ASSERT_TRUE(reader.ok()) << reader.fault().text();
    EXPECT_TRUE(reader.value().verify().ok());
    EXPECT_EQ(reader.value().root(), root);
    EXPECT_EQ(reader.value().storage_keys().size(), count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::string key = std::to_string(i);
      std::vector<std::byte> out(*reader.value().storage_size(key));
      ASSERT_TRUE(reader.value().read_storage(key, out).ok());
      EXPECT_EQ(out, storages[i]);
      EXPECT_EQ(reader.value().storage_offset(key) % PthLayout::kAlignment, 0U);
    }
  }
}

TEST(PthLayout, BytesAreAFunctionOfTheContent) {
  EXPECT_EQ(test::small_file(), test::small_file());
}

// Streaming depends on it: what stands before a storage's data is known before its bytes are.
TEST(PthLayout, HeadersKnowNoChecksum) {
  std::vector<std::vector<std::byte>> storages{test::bytes_of("first"), test::bytes_of("second")};
  const auto file = test::make_file(Value::list(), storages);
  const PthLayout layout(std::vector<std::uint64_t>{5, 6});
  for (std::size_t i = 0; i < 2; ++i) {
    std::vector<std::byte> header(layout.data_offset(i) - layout.header_offset(i));
    layout.write_header(i, header);
    const auto at = file.begin() + static_cast<std::ptrdiff_t>(layout.header_offset(i));
    EXPECT_TRUE(std::equal(header.begin(), header.end(), at));
    EXPECT_EQ(header[6], std::byte{8}) << "flag bit 3";
    for (std::size_t byte = 14; byte < 18; ++byte) EXPECT_EQ(header[byte], std::byte{0});
  }
}

TEST(PthLayout, WrongRoomIsALogicError) {
  const std::vector<std::uint64_t> sizes{8};
  const PthLayout layout(sizes);
  std::vector<std::byte> room(8);
  EXPECT_THROW(layout.write_header(0, room), std::logic_error);
  EXPECT_THROW(layout.write_descriptor(0, 0, room), std::logic_error);
  EXPECT_THROW(layout.make_tail({}, {}, {}), std::logic_error);
}

TEST(PthLayout, HugeStoragesOverflowLoudly) {
  const std::vector<std::uint64_t> sizes{UINT64_MAX / 2, UINT64_MAX / 2};
  EXPECT_THROW(PthLayout{sizes}, std::length_error);
}

// A StoredObject of many gigabytes that holds only the pieces that are not zero.
class SparseObject final : public StoredObject {
 public:
  explicit SparseObject(std::uint64_t size) : size_(size) {}
  void put(std::uint64_t offset, std::vector<std::byte> bytes) {
    pieces_.emplace_back(offset, std::move(bytes));
  }
  std::uint64_t size() const override { return size_; }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    std::fill(out.begin(), out.end(), std::byte{0});
    for (const auto& [at, bytes] : pieces_) {
      const std::uint64_t first = std::max(at, offset);
      const std::uint64_t last = std::min(at + bytes.size(), offset + out.size());
      for (std::uint64_t i = first; i < last; ++i) out[i - offset] = bytes[i - at];
    }
  }

 private:
  std::uint64_t size_;
  std::vector<std::pair<std::uint64_t, std::vector<std::byte>>> pieces_;
};

TEST(PthLayout, BeyondFourGigabytes) {
  // An entry that needs ZIP64 sizes, one exactly at the mark, and one that needs only the offset.
  const std::vector<std::uint64_t> sizes{5'000'000'000, 0xFFFFFFFF, 16, 0xFFFFFFFE};
  const PthLayout layout(sizes);
  const std::vector<std::uint32_t> crcs{1, 2, 3, 4};
  Value root = Value::list();
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto numel = static_cast<std::int64_t>(sizes[i]);
    root.append(make_tensor({std::to_string(i), DType::kUInt8, numel, 0, {numel}, {1}, false}));
  }
  const auto tail = layout.make_tail(crcs, pickle::pickle(root), {});
  auto object = std::make_shared<SparseObject>(layout.storages_end() + tail.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(layout.data_offset(i) % PthLayout::kAlignment, 0U);
    std::vector<std::byte> header(layout.data_offset(i) - layout.header_offset(i));
    layout.write_header(i, header);
    object->put(layout.header_offset(i), std::move(header));
    std::vector<std::byte> descriptor(PthLayout::kDescriptorBytes);
    layout.write_descriptor(i, crcs[i], descriptor);
    object->put(layout.data_end(i), std::move(descriptor));
  }
  object->put(layout.storages_end(), tail);
  const auto reader = PthReader::open(object);
  ASSERT_TRUE(reader.ok()) << reader.fault().text();
  EXPECT_EQ(reader.value().root(), root);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(reader.value().storage_size(std::to_string(i)), sizes[i]);
    EXPECT_EQ(reader.value().storage_offset(std::to_string(i)), layout.data_offset(i));
  }
}

}  // namespace
}  // namespace millrace
