// ControlledStorage: memory that outlives the runner, whose commits a test can watch, hold and make
// fail.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/memory_storage.h"

namespace millrace::test {

class ControlledStorage final : public Storage {
 public:
  // Called on the I/O thread at the start of a commit; may block, may throw.
  using OnCommit = std::function<void(std::string_view name)>;
  explicit ControlledStorage(std::shared_ptr<MemoryStorage> memory, OnCommit on_commit = {})
      : memory_(std::move(memory)), on_commit_(std::move(on_commit)) {}

  std::string location() const override { return memory_->location(); }
  std::vector<std::string> prepare() override { return memory_->prepare(); }
  CommitTimes commit(std::string_view name, FileImage& image) override {
    if (on_commit_) on_commit_(name);
    return memory_->commit(name, image);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    return memory_->open(name);
  }
  std::vector<ObjectInfo> list() const override { return memory_->list(); }
  void retire(std::string_view name) override { memory_->retire(name); }

 private:
  std::shared_ptr<MemoryStorage> memory_;
  OnCommit on_commit_;
};

}  // namespace millrace::test
