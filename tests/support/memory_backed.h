// MemoryBacked: a storage that hands everything to a memory that outlives it. What a test wants to
// see, hold or make fail it overrides.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/memory_storage.h"

namespace millrace::test {

class MemoryBacked : public Storage {
 public:
  explicit MemoryBacked(std::shared_ptr<MemoryStorage> memory) : memory_(std::move(memory)) {}

  std::string location() const override { return memory_->location(); }
  std::vector<std::string> prepare() override { return memory_->prepare(); }
  CommitTimes commit(std::string_view name, FileImage& image) override {
    return memory_->commit(name, image);
  }
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override {
    return memory_->commit_named(stem, image, final_name);
  }
  bool link(std::string_view existing, std::string_view name) override {
    return memory_->link(existing, name);
  }
  bool append(std::string_view name, std::span<const std::byte> bytes) override {
    return memory_->append(name, bytes);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    return memory_->open(name);
  }
  std::vector<ObjectInfo> list() const override { return memory_->list(); }
  void retire(std::string_view name) override { memory_->retire(name); }

 protected:
  MemoryStorage& memory() const noexcept { return *memory_; }

 private:
  std::shared_ptr<MemoryStorage> memory_;
};

}  // namespace millrace::test
