#include "millrace/io/digest_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>

#include "millrace/io/sha256.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/images.h"

namespace millrace::test {
namespace {

using Sink = DigestImage::Sink;

// A producer of these bytes, in pieces of at most `piece`.
DigestImage::Produce producer_of(const std::vector<std::byte>& bytes, std::uint64_t piece) {
  return [&bytes, piece](Sink& sink) {
    for (std::size_t at = 0; at < bytes.size();) {
      const auto room = sink.room(std::min<std::uint64_t>(piece, bytes.size() - at));
      std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), room.size(), room.begin());
      at += room.size();
    }
  };
}

std::vector<std::byte> take_all(DigestImage& image, std::uint64_t block) {
  std::vector<std::byte> taken;
  for (std::uint64_t first = 0; first < image.size(); first += block) {
    const auto bytes = image.wait(first, std::min(image.size(), first + block));
    taken.insert(taken.end(), bytes.begin(), bytes.end());
  }
  return taken;
}

TEST(DigestImage, HandsOutAndHashesWhatIsProduced) {
  for (const std::size_t size : {1, 4'095, 4'096, 4'097, 100'000}) {
    const auto bytes = pattern(size, 1);
    for (const std::uint64_t block : {512, 4'096, 1'000'000}) {
      for (const std::uint64_t piece : {7, 4'096, 1'000'000}) {
        DigestImage image("a", size, producer_of(bytes, piece), {});
        EXPECT_TRUE(take_all(image, block) == bytes) << size << " " << block << " " << piece;
        EXPECT_EQ(image.digest(), sha256_hex(bytes));
        EXPECT_EQ(image.digest(), sha256_hex(bytes)) << "asked again";
        image.close();
      }
    }
  }
}

TEST(DigestImage, EmptyImageHasADigest) {
  DigestImage image("a", 0, [](Sink&) {}, {});
  EXPECT_EQ(image.digest(), sha256_hex({}));
  image.close();
}

TEST(DigestImage, PutSplitsAcrossBlocks) {
  const auto bytes = pattern(10'000, 2);
  DigestImage image("a", bytes.size(), [&](Sink& sink) { sink.put(bytes); }, {});
  EXPECT_TRUE(take_all(image, 999) == bytes);
  image.close();
}

// The producer is never further ahead than the ring is long, so memory does not grow.
TEST(DigestImage, ProducerWaitsForTheWriter) {
  constexpr std::uint64_t kBlock = 1'000;
  const auto bytes = pattern(20 * kBlock, 3);
  std::atomic<std::uint64_t> produced{0};
  std::uint64_t furthest = 0;
  DigestImage image("a", bytes.size(),
                    [&](Sink& sink) {
                      for (std::uint64_t at = 0; at < bytes.size(); at += kBlock) {
                        sink.put(std::span(bytes).subspan(at, kBlock));
                        produced = at + kBlock;
                      }
                    },
                    {});
  for (std::uint64_t first = 0; first < bytes.size(); first += kBlock) {
    image.wait(first, first + kBlock);
    furthest = std::max(furthest, produced.load() - first);
  }
  image.close();
  EXPECT_LE(furthest, 5 * kBlock);
}

TEST(DigestImage, WhatTheProducerThrowsReachesTheWriter) {
  const auto bytes = pattern(10'000, 4);
  DigestImage image("a", 20'000,
                    [&](Sink& sink) {
                      sink.put(bytes);
                      throw CheckpointError("a", "the source is bad");
                    },
                    {});
  EXPECT_THROW(take_all(image, 1'000), CheckpointError);
  image.close();
}

TEST(DigestImage, AWrongNumberOfBytesIsALogicError) {
  const auto bytes = pattern(10'000, 5);
  for (const std::uint64_t size : {9'999, 10'001, 9'000, 11'000}) {
    DigestImage image("a", size, [&](Sink& sink) { sink.put(bytes); }, {});
    EXPECT_THROW(
        {
          take_all(image, 1'000);
          (void)image.digest();
        },
        std::logic_error)
        << size;
    image.close();
  }
}

TEST(DigestImage, BlocksAreAskedForInOrder) {
  const auto bytes = pattern(10'000, 6);
  DigestImage image("a", bytes.size(), producer_of(bytes, 100), {});
  image.wait(0, 1'000);
  EXPECT_THROW(image.wait(0, 1'000), std::logic_error);
  EXPECT_THROW(image.wait(2'000, 3'000), std::logic_error);
  EXPECT_THROW(image.wait(1'000, 1'500), std::logic_error);
  EXPECT_THROW((void)image.digest(), std::logic_error) << "before the last block";
  image.close();
}

TEST(DigestImage, StopEndsAWait) {
  std::stop_source stop;
  std::latch producing(1), ended(1);
  DigestImage image(
      "a.pth", 10'000,
      [&](Sink& sink) {
        (void)sink.room(1);
        producing.count_down();
        ended.wait();
      },
      stop.get_token());
  std::thread stopper([&] {
    producing.wait();
    stop.request_stop();
  });
  try {
    image.wait(0, 10'000);
    ADD_FAILURE() << "it was not stopped";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("a.pth: stopped on request"));
  }
  ended.count_down();
  stopper.join();
  image.close();
}

TEST(DigestImage, StopAfterTheLastByteIsStillAStop) {
  std::stop_source stop;
  const auto bytes = pattern(1'000, 7);
  DigestImage image("a", bytes.size(), producer_of(bytes, 100), stop.get_token());
  take_all(image, 1'000);
  (void)image.digest();
  stop.request_stop();
  EXPECT_THROW((void)image.digest(), Error);
  image.close();
}

TEST(DigestImage, CloseEndsThreadsWhateverTheyDo) {
  const auto bytes = pattern(100'000, 8);
  for (const std::uint64_t taken : {0, 1, 3, 50}) {
    DigestImage image("a", bytes.size(), producer_of(bytes, 100), {});
    for (std::uint64_t i = 0; i < taken; ++i) image.wait(i * 1'000, (i + 1) * 1'000);
    image.close();
    image.close();
  }
}

}  // namespace
}  // namespace millrace::test
