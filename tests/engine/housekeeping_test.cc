// What is done to committed files, when it takes long.
#include "millrace/runtime/engine/housekeeping.h"

#include <gmock/gmock.h>

#include <atomic>
#include <mutex>
#include <set>

#include "millrace/hooks/checkpoint_hook.h"
#include "tests/support/fake_run.h"
#include "tests/support/hold.h"
#include "tests/support/images.h"
#include "tests/support/memory_backed.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

// Memory whose links take as long as the test likes.
class SlowLinks final : public test::MemoryBacked {
 public:
  SlowLinks(std::shared_ptr<MemoryStorage> files, test::Hold& link, std::atomic<int>& early)
      : MemoryBacked(std::move(files)), link_(link), early_(early) {}
  bool link(std::string_view existing, std::string_view name) override {
    {
      const std::lock_guard lock(mutex_);
      sources_.emplace(existing);
    }
    link_.enter();
    const bool linked = memory().link(existing, name);
    const std::lock_guard lock(mutex_);
    sources_.erase(sources_.find(std::string(existing)));
    return linked;
  }
  void retire(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    if (sources_.contains(std::string(name))) ++early_;
    memory().retire(name);
  }

 private:
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
