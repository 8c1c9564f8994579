// MemoryStorage whose commits of checkpoints a test can hold, and whose objects outlive the run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "millrace/io/memory_storage.h"

namespace millrace::test {

class GatedStorage final : public Storage {
 public:
  // `before` runs on the I/O thread ahead of every commit of a .pth, and may block.
  GatedStorage(std::shared_ptr<MemoryStorage> objects, std::function<void()> before)
      : objects_(std::move(objects)), before_(std::move(before)) {}

  std::string location() const override { return objects_->location(); }
  std::vector<std::string> prepare() override { return objects_->prepare(); }
  CommitTimes commit(std::string_view name, FileImage& image) override {
    if (before_ && name.ends_with(".pth")) before_();
    return objects_->commit(name, image);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    return objects_->open(name);
  }
  std::vector<ObjectInfo> list() const override { return objects_->list(); }
  void retire(std::string_view name) override { objects_->retire(name); }

 private:
  std::shared_ptr<MemoryStorage> objects_;
  std::function<void()> before_;
};

}  // namespace millrace::test
