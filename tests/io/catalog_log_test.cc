#include "millrace/io/catalog_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "millrace/io/crc32.h"
#include "millrace/io/record_stream.h"
#include "tests/io/support/allocation_meter.h"

namespace millrace::test {
namespace {

using ::testing::HasSubstr;
using State = CatalogLog::State;

CatalogRow row_of(std::string name, std::string save_id) {
  CatalogRow row;
  row.name = std::move(name);
  row.identity = {std::move(save_id), "parent", 7, "interval", 3, 1200};
  row.size = 123'456'789'012;
  row.digest = "0f";
  row.saved_at_ns = 1'700'000'000'000'000'000;
  row.scores = {{"acc", 0.5}, {"loss", -1e300}};
  row.scores_known = true;
  row.pinned = true;
  return row;
}

std::vector<std::byte> log_of(const std::vector<CatalogChange>& changes) {
  std::vector<std::byte> log = catalog_header();
  for (const CatalogChange& change : changes) {
    const auto record = catalog_record(change);
    log.insert(log.end(), record.begin(), record.end());
  }
  return log;
}

// A record around any payload, with checksums that are right.
std::vector<std::byte> record_around(std::string_view payload) {
  const auto number = [](std::vector<std::byte>& out, std::uint32_t value) {
    for (int i = 0; i < 32; i += 8) out.push_back(static_cast<std::byte>(value >> i));
  };
  const auto bytes = std::as_bytes(std::span(payload));
  std::vector<std::byte> out;
  number(out, static_cast<std::uint32_t>(payload.size()));
  number(out, crc32(out));
  number(out, crc32(bytes));
  out.insert(out.end(), bytes.begin(), bytes.end());
  return out;
}

TEST(CatalogLog, EveryFieldSurvives) {
  CatalogRow unknown = row_of("b", "");
  unknown.scores = {{"nan", std::nan("")}};
  unknown.scores_known = false;
  unknown.pinned.reset();
  CatalogRow unpinned = row_of("c", "2");
  unpinned.pinned = false;
  const auto log = decode_catalog(log_of({row_of("a", "1"), unknown, unpinned}));
  EXPECT_EQ(log.state, State::whole);
  EXPECT_EQ(log.records, 3U);
  ASSERT_EQ(log.rows.size(), 3U);
  EXPECT_EQ(log.rows[0], row_of("a", "1"));
  EXPECT_TRUE(std::isnan(log.rows[1].scores.at("nan")));
  EXPECT_FALSE(log.rows[1].scores_known);
  EXPECT_FALSE(log.rows[1].pinned.has_value());
  EXPECT_EQ(log.rows[2], unpinned);
}

TEST(CatalogLog, ChangesApplyInOrder) {
  const auto log = decode_catalog(
      log_of({row_of("a", "1"), row_of("b", "2"), row_of("best", "1"), CatalogScore{"1", "acc", 9},
              CatalogPin{"b", false}, CatalogEnd{"a"}, row_of("b", "3"), CatalogScore{"2", "x", 1},
              CatalogScore{"", "x", 1}, CatalogEnd{"absent"}, CatalogPin{"absent", true}}));
  EXPECT_EQ(log.state, State::whole);
  ASSERT_EQ(log.rows.size(), 2U);
  EXPECT_EQ(log.rows[0].name, "best");
  EXPECT_EQ(log.rows[0].scores.at("acc"), 9);
  EXPECT_EQ(log.rows[1], row_of("b", "3")) << "changed by what was said of its predecessor";
}

TEST(CatalogLog, ApplySaysWhetherARowWasMeant) {
  std::vector<CatalogRow> rows;
  EXPECT_FALSE(apply_change(rows, CatalogScore{"1", "acc", 1}));
  EXPECT_FALSE(apply_change(rows, CatalogPin{"a", true}));
  EXPECT_FALSE(apply_change(rows, CatalogEnd{"a"}));
  EXPECT_TRUE(apply_change(rows, row_of("a", "1")));
  EXPECT_TRUE(apply_change(rows, row_of("best", "1")));
  EXPECT_TRUE(apply_change(rows, CatalogScore{"1", "f1", 1}));
  for (const CatalogRow& row : rows) EXPECT_EQ(row.scores.at("f1"), 1) << row.name;
  EXPECT_TRUE(apply_change(rows, CatalogEnd{"a"}));
  EXPECT_EQ(rows.size(), 1U);
}

TEST(CatalogLog, HeaderIsChecked) {
  EXPECT_EQ(decode_catalog({}).state, State::corrupt);
  auto header = catalog_header();
  EXPECT_EQ(decode_catalog(header).state, State::whole);
  EXPECT_EQ(decode_catalog(std::span(header).first(15)).state, State::corrupt);
  header[8] = std::byte{2};
  EXPECT_EQ(decode_catalog(header).state, State::corrupt) << "a damaged version is no version";
  const std::uint32_t crc = crc32(std::span(header).first(12));
  for (int i = 0; i < 4; ++i) header[12 + i] = static_cast<std::byte>(crc >> (8 * i));
  const auto newer = decode_catalog(header);
  EXPECT_EQ(newer.state, State::newer);
  EXPECT_THAT(newer.problem, HasSubstr("version 2"));
}

TEST(CatalogLog, CorruptRecordMakesEveryRowUnknown) {
  auto log = log_of({row_of("a", "1")});
  const std::size_t sound = log.size();
  const auto more = log_of({row_of("b", "2")});
  log.insert(log.end(), more.begin() + 16, more.end());
  log[sound + 20] ^= std::byte{1};
  const auto decoded = decode_catalog(log);
  EXPECT_EQ(decoded.state, State::corrupt);
  EXPECT_THAT(decoded.problem, HasSubstr("byte " + std::to_string(sound)));
  ASSERT_EQ(decoded.rows.size(), 1U);
  EXPECT_TRUE(decoded.rows[0].scores.empty());
  EXPECT_FALSE(decoded.rows[0].scores_known);
  EXPECT_FALSE(decoded.rows[0].pinned.has_value());
  EXPECT_EQ(decoded.rows[0].digest, "0f");
}

TEST(CatalogLog, RecordsWithRightChecksumsAreNotBelievedEither) {
  const auto with = [](auto... fields) {
    RecordWriter writer;
    writer(fields...);
    return std::move(writer).take();
  };
  const auto u8 = [](int value) { return static_cast<std::uint8_t>(value); };
  const std::string name = "a";
  const std::uint64_t huge = ~std::uint64_t{0};
  const std::string row = [&] {
    RecordWriter writer;
    writer(u8(0), name, name, name, huge, name, std::int64_t{0}, std::int64_t{0}, huge, name,
           std::int64_t{0}, u8(1), u8(0), huge);
    return std::move(writer).take();
  }();
  for (const std::string& payload :
       {std::string(), std::string("\1"), with(u8(4), name), with(u8(200)), with(u8(3)),
        with(u8(3), huge), with(u8(3), name, u8(0)), with(u8(2), name, u8(2)),
        with(u8(2), name, u8(3)), with(u8(1), name, huge), row}) {
    auto log = catalog_header();
    const auto record = record_around(payload);
    log.insert(log.end(), record.begin(), record.end());
    EXPECT_EQ(decode_catalog(log).state, State::corrupt) << ::testing::PrintToString(payload);
  }
}

TEST(CatalogLog, AGenerationAfterWhichNoneCanComeIsRefused) {
  CatalogRow row = row_of("a", "1");
  row.identity.generation = kMaxGeneration;
  EXPECT_EQ(decode_catalog(log_of({row})).state, State::whole);
  ++row.identity.generation;
  const CatalogLog log = decode_catalog(log_of({row}));
  EXPECT_EQ(log.state, State::corrupt);
  EXPECT_THAT(log.problem, HasSubstr("generation 9223372036854775808"));
}

TEST(CatalogLog, ALengthBeyondTheLimitIsRefused) {
  auto log = catalog_header();
  const auto record = record_around(std::string((1 << 20) + 1, 'x'));
  log.insert(log.end(), record.begin(), record.end());
  EXPECT_EQ(decode_catalog(log).state, State::corrupt);
  CatalogRow row = row_of("a", "1");
  row.digest = std::string(2 << 20, 'x');
  EXPECT_THROW(catalog_record(row), Error);
}

// What was read can be written again, whatever the scores of a row come to.
TEST(CatalogLog, ScoresThatNoRowCanHoldAreCorrupt) {
  constexpr std::size_t kLimit = 1 << 20, kHead = 12, kScore = 16;
  const CatalogRow row = row_of("a", "1");
  const std::size_t room = kLimit - (catalog_record(row).size() - kHead);
  const CatalogScore half{"1", std::string(700 << 10, 'm'), 1};
  const CatalogScore rest{"1", std::string(room - half.metric.size() - 2 * kScore, 'n'), 1};
  const CatalogLog full = decode_catalog(log_of({row, half, half, rest, CatalogPin{"a", false}}));
  EXPECT_EQ(full.state, State::whole) << full.problem;
  EXPECT_EQ(catalog_record(full.rows.at(0)).size(), kHead + kLimit);

  const CatalogScore drop{"1", "", 1};
  const CatalogLog over = decode_catalog(log_of({row_of("b", "2"), row, half, rest, drop}));
  EXPECT_EQ(over.state, State::corrupt);
  EXPECT_THAT(over.problem, HasSubstr("a row has more scores than a record can hold"));
  EXPECT_EQ(over.records, 4u);
  EXPECT_EQ(over.rows.size(), 2u);
  EXPECT_TRUE(over.rows.back().scores.empty());

  // A row that goes, or is added anew, takes its scores with it.
  const CatalogLog anew = decode_catalog(log_of({row, half, row, half, rest}));
  EXPECT_EQ(anew.state, State::whole) << anew.problem;
  const CatalogLog others = decode_catalog(
      log_of({row, half, row_of("b", "2"), CatalogEnd{"a"}, CatalogScore{"2", half.metric, 1}}));
  EXPECT_EQ(others.state, State::whole) << others.problem;
}

// Names of one save share its scores, as many names as a person has metrics.
TEST(CatalogLog, AScoreReachesEveryNameOfItsSave) {
  std::vector<CatalogChange> changes;
  for (int i = 0; i < 20; ++i) changes.push_back(row_of(std::to_string(i), "1"));
  for (int i = 0; i < 20; ++i) changes.push_back(CatalogScore{"1", "m" + std::to_string(i), 0.5});
  const CatalogLog log = decode_catalog(log_of(changes));
  EXPECT_EQ(log.state, State::whole) << log.problem;
  for (const CatalogRow& row : log.rows) EXPECT_EQ(row.scores.size(), 22u);
}

TEST(CatalogLog, ManyRowsTimesManyScoresTakeNoMoreThanTheLog) {
  std::vector<CatalogChange> changes;
  for (int i = 0; i < 1000; ++i) changes.push_back(row_of(std::to_string(i), "1"));
  for (int i = 0; i < 1000; ++i) {
    changes.push_back(CatalogScore{"1", std::string(100, 'm') + std::to_string(i), 0.5});
  }
  const std::vector<std::byte> bytes = log_of(changes);
  const AllocationMeter meter;
  const CatalogLog log = decode_catalog(bytes);
  EXPECT_LE(meter.peak(), 64 * bytes.size());
  EXPECT_EQ(log.state, State::corrupt);
  EXPECT_THAT(log.problem, HasSubstr("too many rows"));
  EXPECT_EQ(log.rows.size(), 1000u);
}

// Any bytes, also behind checksums that are right: no crash, and no memory beyond what is there.
TEST(CatalogLog, RandomBytesAllocateLittle) {
  std::mt19937 random(7);
  for (int round = 0; round < 3'000; ++round) {
    std::vector<std::byte> log = round % 10 == 0 ? std::vector<std::byte>() : catalog_header();
    for (int records = static_cast<int>(random() % 4); records >= 0; --records) {
      auto record = catalog_record(row_of("name", "id"));
      std::string payload(reinterpret_cast<const char*>(record.data() + 12), record.size() - 12);
      for (int flips = static_cast<int>(random() % 8); flips > 0; --flips) {
        payload[random() % payload.size()] = static_cast<char>(random());
      }
      if (round % 3 == 0) payload.resize(random() % (payload.size() + 1));
      record = round % 5 == 0 ? catalog_record(CatalogEnd{"name"}) : record_around(payload);
      log.insert(log.end(), record.begin(), record.end());
    }
    if (round % 4 == 0) log.resize(log.size() + random() % 64, static_cast<std::byte>(random()));
    const AllocationMeter meter;
    const auto decoded = decode_catalog(log);
    EXPECT_LE(meter.peak(), 8 * log.size() + (8 << 10)) << "round " << round;
    EXPECT_LE(decoded.rows.size(), decoded.records);
  }
}

}  // namespace
}  // namespace millrace::test
