// ControlledStorage: memory that outlives the runner, whose commits a test can watch, hold and make
// fail.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/catalog.h"
#include "tests/support/memory_backed.h"

namespace millrace::test {

class ControlledStorage final : public MemoryBacked {
 public:
  // Called on the I/O thread at the start of a commit (not of the catalog's); may block, may throw.
  using OnCommit = std::function<void(std::string_view name)>;
  // The same for what is written to the catalog.
  using OnCatalog = std::function<void()>;
  explicit ControlledStorage(std::shared_ptr<MemoryStorage> files, OnCommit on_commit = {},
                             OnCatalog on_catalog = {})
      : MemoryBacked(std::move(files)),
        on_commit_(std::move(on_commit)),
        on_catalog_(std::move(on_catalog)) {}

  CommitTimes commit(std::string_view name, FileImage& image) override {
    if (on_commit_ && name != Catalog::kName) on_commit_(name);
    if (on_catalog_ && name == Catalog::kName) on_catalog_();
    return memory().commit(name, image);
  }
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override {
    if (on_commit_) on_commit_(stem);
    return memory().commit_named(stem, image, final_name);
  }
  bool append(std::string_view name, std::span<const std::byte> bytes) override {
    if (on_catalog_) on_catalog_();
    return memory().append(name, bytes);
  }

 private:
  OnCommit on_commit_;
  OnCatalog on_catalog_;
};

}  // namespace millrace::test
