// StepPacedStorage: a disk so slow that it is measured in training steps.
//
// It takes `bytes_per_step` with each step() and nothing in between, so that how much training goes
// on beside a save is a count, and no clock decides. While training waits for the disk time passes
// all the same: between training_waits(true) and (false) it takes what it is given.
//
// Who waits for it without having said so stops the steps, and with them the disk, for ever. It
// sees that after a minute, writes all it is given, and says starved().
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/catalog.h"
#include "millrace/io/storage.h"

namespace millrace::test {

// The disk's speed. Shared by the storage, on I/O threads, and the test, on the train context.
class StepPace {
 public:
  explicit StepPace(std::uint64_t bytes_per_step) : bytes_per_step_(bytes_per_step) {}

  void step() {
    const std::lock_guard lock(mutex_);
    const std::uint64_t done = std::min(left_, bytes_per_step_);
    left_ -= done;
    during_steps_ += done;
    if (left_ == 0) changed_.notify_all();
  }
  void training_waits(bool waits) {
    const std::lock_guard lock(mutex_);
    waits_ = waits;
    changed_.notify_all();
  }
  // I/O thread: returns when so many bytes have been taken.
  void take(std::uint64_t bytes) {
    std::unique_lock lock(mutex_);
    left_ = bytes;
    const auto taken = [this] { return left_ == 0 || waits_ || starved_; };
    if (!changed_.wait_for(lock, std::chrono::minutes(1), taken)) starved_ = true;
    during_waits_ += std::exchange(left_, 0);
  }

  bool starved() const { return locked(starved_); }
  std::uint64_t during_steps() const { return locked(during_steps_); }  // bytes
  std::uint64_t during_waits() const { return locked(during_waits_); }

 private:
  template <class T>
  T locked(const T& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }

  const std::uint64_t bytes_per_step_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t left_ = 0;  // of the block that is being written
  std::uint64_t during_steps_ = 0, during_waits_ = 0;
  bool waits_ = false, starved_ = false;
};

// Another storage at that pace. The catalog is not slowed: its bytes are few.
class StepPacedStorage final : public Storage {
 public:
  StepPacedStorage(std::unique_ptr<Storage> storage, std::shared_ptr<StepPace> pace)
      : storage_(std::move(storage)), pace_(std::move(pace)) {}

  std::string location() const override { return storage_->location(); }
  std::vector<std::string> prepare() override { return storage_->prepare(); }
  CommitTimes commit(std::string_view name, FileImage& image) override {
    if (name == Catalog::kName) return storage_->commit(name, image);
    PacedImage paced(image, *pace_);
    return storage_->commit(name, paced);
  }
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override {
    PacedImage paced(image, *pace_);
    return storage_->commit_named(stem, paced, final_name);
  }
  bool link(std::string_view existing, std::string_view name) override {
    return storage_->link(existing, name);
  }
  bool append(std::string_view name, std::span<const std::byte> bytes) override {
    return storage_->append(name, bytes);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    return storage_->open(name);
  }
  std::vector<ObjectInfo> list() const override { return storage_->list(); }
  void retire(std::string_view name) override { storage_->retire(name); }

 private:
  class PacedImage final : public FileImage {
   public:
    PacedImage(FileImage& image, StepPace& pace) : image_(image), pace_(pace) {}
    std::uint64_t size() const override { return image_.size(); }
    std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override {
      const auto bytes = image_.wait(first, last);
      pace_.take(bytes.size());
      return bytes;
    }
    bool rereadable() const override { return image_.rereadable(); }
    std::uint64_t window() const override { return image_.window(); }

   private:
    FileImage& image_;
    StepPace& pace_;
  };

  std::unique_ptr<Storage> storage_;
  std::shared_ptr<StepPace> pace_;
};

}  // namespace millrace::test
