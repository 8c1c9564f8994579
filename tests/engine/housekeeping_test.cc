// What is done to committed files, when it takes long.
#include "millrace/runtime/engine/housekeeping.h"

#include <gmock/gmock.h>

#include <atomic>
#include <mutex>
#include <set>

#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/io/memory_storage.h"
#include "tests/support/fake_run.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

// Memory whose links take as long as the test likes.
class SlowLinks final : public Storage {
 public:
  SlowLinks(std::shared_ptr<MemoryStorage> memory, test::Hold& link, std::atomic<int>& early)
      : memory_(std::move(memory)), link_(link), early_(early) {}
  std::string location() const override { return memory_->location(); }
  std::vector<std::string> prepare() override { return memory_->prepare(); }
  CommitTimes commit(std::string_view name, FileImage& image) override {
    return memory_->commit(name, image);
  }
  bool link(std::string_view existing, std::string_view name) override {
    {
      const std::lock_guard lock(mutex_);
      sources_.emplace(existing);
    }
    link_.enter();
    const bool linked = memory_->link(existing, name);
    const std::lock_guard lock(mutex_);
    sources_.erase(sources_.find(std::string(existing)));
    return linked;
  }
  bool append(std::string_view name, std::span<const std::byte> bytes) override {
    return memory_->append(name, bytes);
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    return memory_->open(name);
  }
  std::vector<ObjectInfo> list() const override { return memory_->list(); }
  void retire(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    if (sources_.contains(std::string(name))) ++early_;
    memory_->retire(name);
  }

 private:
  std::shared_ptr<MemoryStorage> memory_;
  test::Hold& link_;
  std::atomic<int>& early_;
  std::mutex mutex_;
  std::multiset<std::string> sources_;  // of the links being made
};

TEST(Housekeeping, AFileIsNotRemovedWhileASecondNameIsMadeForIt) {
  const test::TempDir dir;
  test::Hold link;
  std::atomic<int> early{0};
  auto files = std::make_shared<MemoryStorage>();
  test::FakeRun run(dir.path() / "run");
  run.validate();
  run.options.max_epochs = 4;
  run.parts.storage = std::make_unique<SlowLinks>(files, link, early);
  CheckpointHookOptions options;
  options.interval = 1;
  options.max_keep_ckpts = 1;
  options.save_best = {"accuracy"};
  run.parts.hooks.add(std::make_unique<CheckpointHook>(options));
  // The link of epoch 1 is held to the end; its file has long been given up by then.
  run.parts.hooks.add(test::on_event<AfterTrain>([&](const AfterTrain&, RunContext&) {
    link.wait_until_entered();
    link.release();
  }));
  run.train();
  EXPECT_EQ(early, 0);
  const auto names = test::names_of(*files);
  EXPECT_THAT(names, ::testing::Contains("epoch_4.pth"));
  EXPECT_THAT(names, ::testing::Not(::testing::Contains("epoch_1.pth")));
  EXPECT_THAT(names, ::testing::Contains(::testing::StartsWith("best_accuracy_epoch_")));
}

}  // namespace
}  // namespace millrace
