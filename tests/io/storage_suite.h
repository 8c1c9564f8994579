// What every Storage does. Instantiate it with a factory type:
//
//   struct LocalFactory { std::unique_ptr<Storage> make(); };   // a fresh, empty storage per test
//   INSTANTIATE_TYPED_TEST_SUITE_P(Local, StorageSuite, LocalFactory);
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "millrace/io/storage.h"
#include "millrace/runtime/async/error.h"
#include "tests/support/images.h"

namespace millrace::test {

template <class Factory>
class StorageSuite : public ::testing::Test {
 protected:
  void SetUp() override {
    storage_ = factory_.make();
    EXPECT_TRUE(storage_->prepare().empty());
  }

  Factory factory_;
  std::unique_ptr<Storage> storage_;
};

TYPED_TEST_SUITE_P(StorageSuite);

TYPED_TEST_P(StorageSuite, StartsEmptyAndHasALocation) {
  EXPECT_TRUE(this->storage_->list().empty());
  EXPECT_FALSE(this->storage_->location().empty());
}

TYPED_TEST_P(StorageSuite, CommittedObjectIsListedAndRead) {
  const auto bytes = pattern(10'000, 1);
  const CommitTimes times = commit_bytes(*this->storage_, "epoch_1.pth", bytes);
  EXPECT_LE(times.started, times.written);
  EXPECT_LE(times.written, times.synced);
  EXPECT_LE(times.synced, times.durable);
  EXPECT_NE(times.started, std::chrono::steady_clock::time_point());
  const auto listed = this->storage_->list();
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].name, "epoch_1.pth");
  EXPECT_EQ(listed[0].size, bytes.size());
  EXPECT_GT(listed[0].modified_ns, 0);
  EXPECT_EQ(read_all(*this->storage_, "epoch_1.pth"), bytes);
}

TYPED_TEST_P(StorageSuite, ListIsSortedByName) {
  for (const char* name : {"b", "a", "epoch_10.pth", "epoch_1.pth", "C"}) {
    commit_text(*this->storage_, name, name);
  }
  EXPECT_THAT(names_of(*this->storage_),
              ::testing::ElementsAre("C", "a", "b", "epoch_1.pth", "epoch_10.pth"));
}

TYPED_TEST_P(StorageSuite, ReadsAnyRangeAndRefusesToReadPastTheEnd) {
  const auto bytes = pattern(5'000, 2);
  commit_bytes(*this->storage_, "a", bytes);
  const auto object = this->storage_->open("a");
  std::vector<std::byte> part(100);
  object->read(4'900, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), bytes.begin() + 4'900));
  EXPECT_THROW(object->read(4'901, part), StorageError);
  EXPECT_THROW(object->read(50'000, part), StorageError);
  object->read(5'000, {});
}

TYPED_TEST_P(StorageSuite, MissingObjectIsEnoent) {
  try {
    this->storage_->open("absent.pth");
    FAIL() << "opened a missing object";
  } catch (const StorageError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
    EXPECT_THAT(error.path(), ::testing::HasSubstr("absent.pth"));
  }
  this->storage_->retire("absent.pth");
}

TYPED_TEST_P(StorageSuite, RetiredObjectIsGone) {
  commit_text(*this->storage_, "a", "one");
  commit_text(*this->storage_, "b", "two");
  this->storage_->retire("a");
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("b"));
  EXPECT_THROW(this->storage_->open("a"), StorageError);
  commit_text(*this->storage_, "a", "three");
  EXPECT_EQ(read_text(*this->storage_, "a"), "three");
}

TYPED_TEST_P(StorageSuite, OverwritingReplacesTheWholeObject) {
  commit_bytes(*this->storage_, "a", pattern(9'000, 3));
  commit_text(*this->storage_, "a", "short");
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("a"));
  EXPECT_EQ(read_text(*this->storage_, "a"), "short");
}

TYPED_TEST_P(StorageSuite, OldObjectIsThereUntilTheNewOneIsComplete) {
  const auto old_bytes = pattern(3'000, 4);
  const auto new_bytes = pattern(20 << 20, 5);
  commit_bytes(*this->storage_, "a", old_bytes);
  int blocks = 0;
  HookedImage image(new_bytes, [&](std::uint64_t) {
    ++blocks;
    EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("a"));
    EXPECT_EQ(read_all(*this->storage_, "a"), old_bytes);
  });
  this->storage_->commit("a", image);
  EXPECT_GT(blocks, 1);
  EXPECT_EQ(read_all(*this->storage_, "a"), new_bytes);
}

TYPED_TEST_P(StorageSuite, OpenReadersKeepTheirBytes) {
  const auto bytes = pattern(70'000, 6);
  commit_bytes(*this->storage_, "a", bytes);
  commit_bytes(*this->storage_, "b", bytes);
  const auto overwritten = this->storage_->open("a");
  const auto retired = this->storage_->open("b");
  commit_text(*this->storage_, "a", "new");
  this->storage_->retire("b");
  EXPECT_EQ(read_all(*overwritten), bytes);
  EXPECT_EQ(read_all(*retired), bytes);
  this->storage_.reset();
  EXPECT_EQ(read_all(*overwritten), bytes);
}

TYPED_TEST_P(StorageSuite, EmptyObject) {
  commit_text(*this->storage_, "empty", "");
  ASSERT_EQ(this->storage_->list().size(), 1U);
  EXPECT_EQ(this->storage_->list()[0].size, 0U);
  EXPECT_EQ(this->storage_->open("empty")->size(), 0U);
}

TYPED_TEST_P(StorageSuite, LargeObjectsOfOddSizes) {
  for (const std::size_t size : {std::size_t{32} << 20, (std::size_t{8} << 20) + 1,
                                 (std::size_t{16} << 20) - 1, (std::size_t{1} << 20) + 4096}) {
    const auto bytes = pattern(size, 7);
    commit_bytes(*this->storage_, "large", bytes);
    EXPECT_TRUE(read_all(*this->storage_, "large") == bytes) << size;
  }
}

TYPED_TEST_P(StorageSuite, BadNamesAreRefused) {
  const std::string nul("a\0b", 3);
  const std::string too_long(201, 'x');
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string("/a"), std::string(".hidden"),
        std::string("."), std::string(".."), nul, too_long}) {
    EXPECT_THROW(commit_text(*this->storage_, name, "x"), StorageError) << name;
    EXPECT_THROW(this->storage_->open(name), StorageError) << name;
    EXPECT_THROW(this->storage_->retire(name), StorageError) << name;
    EXPECT_THROW(this->storage_->link(name, "a"), StorageError) << name;
    EXPECT_THROW(this->storage_->link("a", name), StorageError) << name;
    EXPECT_THROW(this->storage_->append(name, {}), StorageError) << name;
  }
  EXPECT_TRUE(this->storage_->list().empty());
  commit_text(*this->storage_, std::string(200, 'x'), "longest");
  EXPECT_EQ(this->storage_->list().size(), 1U);
}

// Holds a storage to the rules of FileImage, and spoils a block when the next one is asked for.
class StrictImage final : public FileImage {
 public:
  StrictImage(std::vector<std::byte> bytes, std::uint64_t window)
      : bytes_(std::move(bytes)), window_(window) {}
  std::uint64_t size() const override { return bytes_.size(); }
  std::uint64_t window() const override { return window_; }
  bool rereadable() const override { return false; }
  std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override {
    EXPECT_EQ(first, taken_) << "every byte once, front to back";
    EXPECT_LE(last - first, window_);
    if (block_ == 0) block_ = last - first;
    EXPECT_TRUE(last - first == block_ || last == bytes_.size()) << "blocks of one size";
    EXPECT_TRUE(block_ % 4096 == 0 || last == bytes_.size()) << block_;
    taken_ = last;
    std::fill(given_.begin(), given_.end(), std::byte{0xEE});
    std::vector<std::byte>& next = blocks_[first / std::max<std::uint64_t>(block_, 1) % 2];
    next.assign(bytes_.begin() + static_cast<std::ptrdiff_t>(first),
                bytes_.begin() + static_cast<std::ptrdiff_t>(last));
    given_ = next;
    return next;
  }
  bool taken() const { return taken_ == bytes_.size(); }

 private:
  std::vector<std::byte> bytes_, blocks_[2];
  std::span<std::byte> given_;
  std::uint64_t window_, taken_ = 0, block_ = 0;
};

TYPED_TEST_P(StorageSuite, AsksForAnImageAsItAllows) {
  for (const std::size_t size : {100, 64 << 10, 300'001}) {
    const auto bytes = pattern(size, 11);
    for (const std::uint64_t window : {4096, 65536}) {
      StrictImage image(bytes, window);
      this->storage_->commit("a.pth", image);
      EXPECT_TRUE(image.taken());
      EXPECT_EQ(read_all(*this->storage_, "a.pth"), bytes);
      StrictImage named(bytes, window);
      this->storage_->commit_named("a", named, [] { return std::string("a-1.pth"); });
      EXPECT_TRUE(named.taken());
      EXPECT_EQ(read_all(*this->storage_, "a-1.pth"), bytes);
    }
  }
}

TYPED_TEST_P(StorageSuite, DiscardedImageLeavesNothing) {
  const auto old_bytes = pattern(3'000, 8);
  commit_bytes(*this->storage_, "kept", old_bytes);
  for (const std::string name : {"kept", "fresh"}) {
    HookedImage image(pattern(20 << 20, 9), [](std::uint64_t first) {
      if (first > 0) throw CheckpointError("fresh", "discarded");
    });
    EXPECT_THROW(this->storage_->commit(name, image), CheckpointError);
  }
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("kept"));
  EXPECT_EQ(read_all(*this->storage_, "kept"), old_bytes);
  EXPECT_TRUE(this->storage_->prepare().empty()) << "a temporary name was left behind";
}

TYPED_TEST_P(StorageSuite, NameIsAskedForOnceAfterTheLastByte) {
  const auto bytes = pattern(20 << 20, 10);
  std::uint64_t taken = 0;
  int asked = 0;
  HookedImage image(bytes, [&](std::uint64_t first) { taken = first; });
  const auto done = this->storage_->commit_named("epoch_1", image, [&] {
    ++asked;
    EXPECT_GT(taken, 0U);
    EXPECT_TRUE(this->storage_->list().empty()) << "there before it has a name";
    return std::string("epoch_1-") + std::to_string(taken >> 20) + ".pth";
  });
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(done.name, "epoch_1-" + std::to_string(taken >> 20) + ".pth");
  EXPECT_LE(done.times.started, done.times.written);
  EXPECT_LE(done.times.written, done.times.synced);
  EXPECT_LE(done.times.synced, done.times.durable);
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre(done.name));
  EXPECT_TRUE(read_all(*this->storage_, done.name) == bytes);
  EXPECT_TRUE(this->storage_->prepare().empty());
}

TYPED_TEST_P(StorageSuite, NamedCommitReplacesWhatHadTheName) {
  commit_text(*this->storage_, "a", "old");
  BytesImage image(std::string_view("new"));
  this->storage_->commit_named("stem", image, [] { return std::string("a"); });
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("a"));
  EXPECT_EQ(read_text(*this->storage_, "a"), "new");
  EXPECT_TRUE(this->storage_->prepare().empty());
}

TYPED_TEST_P(StorageSuite, NamedCommitThatEndsEarlyLeavesNothing) {
  commit_text(*this->storage_, "kept", "old");
  BytesImage image(std::string_view("new"));
  const auto no_name = [](std::string name) {
    return [name] {
      if (name.empty()) throw CheckpointError("stem", "no name");
      return name;
    };
  };
  EXPECT_THROW(this->storage_->commit_named("stem", image, no_name("")), CheckpointError);
  EXPECT_THROW(this->storage_->commit_named("stem", image, no_name("a/b")), StorageError);
  EXPECT_THROW(this->storage_->commit_named("a/b", image, no_name("kept")), StorageError);
  HookedImage discarded(pattern(20 << 20, 11), [](std::uint64_t first) {
    if (first > 0) throw CheckpointError("stem", "discarded");
  });
  EXPECT_THROW(this->storage_->commit_named("stem", discarded, no_name("kept")), CheckpointError);
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("kept"));
  EXPECT_EQ(read_text(*this->storage_, "kept"), "old");
  EXPECT_TRUE(this->storage_->prepare().empty()) << "a temporary name was left behind";
}

TYPED_TEST_P(StorageSuite, LinkSharesTheBytesOrDoesNothing) {
  commit_text(*this->storage_, "a", "one");
  commit_text(*this->storage_, "b", "two");
  if (!this->storage_->link("a", "best")) {
    EXPECT_FALSE(this->storage_->link("a", "b"));
    EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("a", "b"));
    EXPECT_EQ(read_text(*this->storage_, "b"), "two");
    return;
  }
  EXPECT_TRUE(this->storage_->link("a", "b")) << "over another object";
  EXPECT_TRUE(this->storage_->link("a", "b")) << "again";
  EXPECT_TRUE(this->storage_->link("a", "a")) << "to itself";
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("a", "b", "best"));
  for (const char* name : {"a", "b", "best"}) EXPECT_EQ(read_text(*this->storage_, name), "one");
  EXPECT_TRUE(this->storage_->prepare().empty()) << "a temporary name was left behind";
  commit_text(*this->storage_, "a", "three");
  EXPECT_EQ(read_text(*this->storage_, "best"), "one");
  this->storage_->retire("best");
  EXPECT_EQ(read_text(*this->storage_, "a"), "three");
  EXPECT_EQ(read_text(*this->storage_, "b"), "one");
}

TYPED_TEST_P(StorageSuite, LinkToNothingChangesNothing) {
  commit_text(*this->storage_, "a", "one");
  try {
    EXPECT_FALSE(this->storage_->link("absent", "a")) << "linked a missing object";
  } catch (const StorageError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
    EXPECT_THAT(error.path(), ::testing::HasSubstr("absent"));
  }
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("a"));
  EXPECT_EQ(read_text(*this->storage_, "a"), "one");
  EXPECT_TRUE(this->storage_->prepare().empty());
}

TYPED_TEST_P(StorageSuite, AppendAddsToTheEndOrDoesNothing) {
  const auto add = [this](std::string_view text) {
    return this->storage_->append("log", std::as_bytes(std::span(text)));
  };
  if (!add("one")) {
    EXPECT_TRUE(this->storage_->list().empty());
    commit_text(*this->storage_, "log", "zero");
    EXPECT_FALSE(add("one"));
    EXPECT_EQ(read_text(*this->storage_, "log"), "zero");
    return;
  }
  EXPECT_TRUE(add(""));
  EXPECT_TRUE(add(" two"));
  EXPECT_EQ(read_text(*this->storage_, "log"), "one two");
  commit_text(*this->storage_, "log", "new");
  const auto opened = this->storage_->open("log");
  EXPECT_TRUE(add(" end"));
  EXPECT_EQ(read_text(*this->storage_, "log"), "new end");
  EXPECT_EQ(opened->size(), 3U);
  EXPECT_EQ(read_all(*opened), bytes_of_text("new")) << "an opened object grew";
  std::vector<std::byte> beyond(4);
  EXPECT_THROW(opened->read(0, beyond), StorageError);
  this->storage_->retire("log");
  EXPECT_TRUE(add("fresh"));
  EXPECT_EQ(read_text(*this->storage_, "log"), "fresh");
  EXPECT_THAT(names_of(*this->storage_), ::testing::ElementsAre("log"));
}

TYPED_TEST_P(StorageSuite, ConcurrentCommitsOfDifferentNames) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 5;
  std::atomic<bool> done{false};
  std::thread lister([&] {
    while (!done) {
      for (const ObjectInfo& info : this->storage_->list()) {
        EXPECT_EQ(info.name.find("tmp"), std::string::npos);
        EXPECT_EQ(info.size, 30'000U + static_cast<std::size_t>(info.name.back() - '0'));
      }
    }
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < kThreads; ++i) {
    writers.emplace_back([&, i] {
      const std::string name = "object" + std::to_string(i);
      const auto size = static_cast<std::size_t>(30'000 + i);
      for (int round = 0; round < kRounds; ++round) {
        const auto bytes = pattern(size, static_cast<std::uint32_t>(i * 100 + round));
        commit_bytes(*this->storage_, name, bytes);
        EXPECT_EQ(read_all(*this->storage_, name), bytes);
        if (round + 1 < kRounds) this->storage_->retire(name);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  done = true;
  lister.join();
  EXPECT_EQ(this->storage_->list().size(), static_cast<std::size_t>(kThreads));
}

TYPED_TEST_P(StorageSuite, PrepareKeepsObjects) {
  commit_text(*this->storage_, "a.tmp", "an object by a strange name");
  commit_text(*this->storage_, "b.0123456789abcdef.trash", "another");
  EXPECT_TRUE(this->storage_->prepare().empty());
  EXPECT_EQ(this->storage_->list().size(), 2U);
}

REGISTER_TYPED_TEST_SUITE_P(StorageSuite, StartsEmptyAndHasALocation,
                            CommittedObjectIsListedAndRead, ListIsSortedByName,
                            ReadsAnyRangeAndRefusesToReadPastTheEnd, MissingObjectIsEnoent,
                            RetiredObjectIsGone, OverwritingReplacesTheWholeObject,
                            OldObjectIsThereUntilTheNewOneIsComplete, OpenReadersKeepTheirBytes,
                            AsksForAnImageAsItAllows, EmptyObject, LargeObjectsOfOddSizes,
                            BadNamesAreRefused, DiscardedImageLeavesNothing,
                            NameIsAskedForOnceAfterTheLastByte, NamedCommitReplacesWhatHadTheName,
                            NamedCommitThatEndsEarlyLeavesNothing, LinkSharesTheBytesOrDoesNothing,
                            LinkToNothingChangesNothing, AppendAddsToTheEndOrDoesNothing,
                            ConcurrentCommitsOfDifferentNames, PrepareKeepsObjects);

}  // namespace millrace::test
