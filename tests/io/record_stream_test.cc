#include "millrace/io/record_stream.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/io/support/allocation_meter.h"

namespace millrace {
namespace {

TEST(RecordStream, RoundTrip) {
  RecordWriter out;
  out(std::int64_t{-3}, true, 0.1, std::string("a\0b", 3), std::vector<std::int64_t>{1, 2},
      std::vector<std::string>{"x", ""});
  const std::string bytes = std::move(out).take();
  std::int64_t number = 0;
  bool flag = false;
  double real = 0;
  std::string text;
  std::vector<std::int64_t> numbers;
  std::vector<std::string> texts;
  RecordReader in(bytes);
  in(number, flag, real, text, numbers, texts);
  EXPECT_EQ(number, -3);
  EXPECT_TRUE(flag);
  EXPECT_EQ(real, 0.1);
  EXPECT_EQ(text, std::string("a\0b", 3));
  EXPECT_EQ(numbers, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(texts, (std::vector<std::string>{"x", ""}));
  EXPECT_THROW(in(number), RecordError) << "nothing is left";
}

TEST(RecordStream, NothingIsARecordErrorToo) { EXPECT_THROW(RecordReader(""), RecordError); }

template <class T>
void expect_refused(const std::string& bytes) {
  const test::AllocationMeter meter;
  T value;
  EXPECT_THROW(
      {
        RecordReader in(bytes);
        in(value);
      },
      RecordError);
  EXPECT_LT(meter.peak(), 100'000u);
}

TEST(RecordStream, ALengthMayNotExceedWhatIsLeft) {
  for (const std::uint64_t length :
       {std::uint64_t{9}, std::uint64_t{1} << 40, std::uint64_t{1} << 61, UINT64_MAX}) {
    RecordWriter out;
    out(length, std::uint64_t{0});
    const std::string bytes = std::move(out).take();
    expect_refused<std::string>(bytes);
    expect_refused<std::vector<double>>(bytes);
    expect_refused<std::vector<std::string>>(bytes);
  }
  RecordWriter out;
  out(std::uint64_t{2}, std::uint64_t{0});
  expect_refused<std::vector<double>>(std::move(out).take());
}

TEST(RecordStream, ALengthThatFitsExactlyIsFine) {
  RecordWriter out;
  out(std::uint64_t{8}, std::uint64_t{0});
  const std::string bytes = std::move(out).take();
  std::string text;
  RecordReader in(bytes);
  in(text);
  EXPECT_EQ(text, std::string(8, '\0'));
}

}  // namespace
}  // namespace millrace
