// The ranges that a profiler would see: this test is its own tool, linked statically.
#include "millrace/hooks/nvtx_hook.h"

#include <gmock/gmock.h>
#include <nvtx3/nvToolsExt.h>

#include <string>
#include <vector>

#include "millrace/hooks/checkpoint_hook.h"
#include "tests/support/fake_run.h"
#include "tests/support/temp_dir.h"

namespace {

// Of the train thread, which is this one. What is not of the run is LibTorch's, of which there is
// none here.
std::vector<std::string> g_open, g_seen;

int NVTX_API push(const char* name) {
  g_open.emplace_back(name);
  std::string path;
  for (const std::string& range : g_open) path += (path.empty() ? "" : " > ") + range;
  g_seen.push_back(path);
  return 0;
}
int NVTX_API pop() {
  g_open.pop_back();
  return 0;
}

int NVTX_API attach(NvtxGetExportTableFunc_t get_table) {
  const auto* const callbacks =
      static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &size) == 0) return 0;
  *table[NVTX_CBID_CORE_RangePushA] = reinterpret_cast<NvtxFunctionPointer>(&push);
  *table[NVTX_CBID_CORE_RangePop] = reinterpret_cast<NvtxFunctionPointer>(&pop);
  return 1;
}

// Before the first range, which looks for a tool.
const bool g_attached = (InitializeInjectionNvtx2_fnptr = &attach) != nullptr;

}  // namespace

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(NvtxHook, EveryStageIsARange) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 1;
  run.validate();
  run.parts.hooks.add(std::make_unique<CheckpointHook>(CheckpointHookOptions{.interval = 1}));
  run.parts.hooks.add(std::make_unique<NvtxHook>());
  g_seen.clear();
  run.train();
  ASSERT_TRUE(g_attached);
  EXPECT_THAT(g_open, IsEmpty());
  const std::string epoch = "train > train_epoch 1";
  ASSERT_GE(g_seen.size(), 8u);
  EXPECT_EQ(g_seen[0], "train");
  EXPECT_EQ(g_seen[1], epoch);
  EXPECT_EQ(g_seen[2], epoch + " > train_iter 1");
  EXPECT_EQ(g_seen[3], epoch + " > train_iter 1 > optimizer_step");
  EXPECT_EQ(g_seen[4], epoch + " > train_iter 2");
  EXPECT_THAT(g_seen, Contains("train > save")) << "after the epoch";
  EXPECT_EQ(g_seen.back(), "train > val > val_epoch > val_iter 2");
}

TEST(NvtxHook, AStopLeavesNoRangeOpen) {
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_epochs = 1;
  run.parts.hooks.add(std::make_unique<NvtxHook>());
  run.parts.hooks.add(test::on_event<AfterTrainIter>([&](const AfterTrainIter& e, RunContext& r) {
    if (e.at.iter == 1) r.request_stop("enough");
  }));
  g_seen.clear();
  run.train();
  EXPECT_THAT(g_open, IsEmpty());
  EXPECT_THAT(g_seen,
              ElementsAre("train", "train > train_epoch 1", "train > train_epoch 1 > train_iter 1",
                          "train > train_epoch 1 > train_iter 1 > optimizer_step",
                          "train > train_epoch 1 > train_iter 2",
                          "train > train_epoch 1 > train_iter 2 > optimizer_step"));
}

}  // namespace
}  // namespace millrace
