// Run after run in one process, as a service does it: each leaves nothing behind.
#include <gtest/gtest.h>

#include <thread>

#include "millrace/hooks/default_hooks.h"
#include "millrace/hooks/trace_hook.h"
#include "tests/support/fake_run.h"
#include "tests/support/process_usage.h"
#include "tests/support/stress.h"
#include "tests/support/temp_dir.h"

namespace millrace {
namespace {

constexpr std::int64_t kIters = 20;  // of one run

std::size_t runs() { return std::max<std::size_t>(5, test::stress_count(20, 100)); }

void equip(test::FakeRun& run) {
  run.options.scalar_history = 10;
  run.options.val_interval = 10;
  run.options.log_sink = [](LogLevel, std::string_view) {};
  run.validate();
  run.parts.hooks = default_hooks({.checkpoint = {.interval = 5,
                                                  .by_epoch = false,
                                                  .save_best = {"auto"},
                                                  .max_keep_ckpts = 2,
                                                  .on_busy = OnBusy::kReplace}});
  run.parts.hooks.add(std::make_unique<TraceHook>("trace.json", 100));
}

// A sanitizer starts its own thread with the first one of the program.
std::size_t threads_at_rest() {
  std::thread([] {}).join();
  return test::process_usage().threads;
}

void expect_flat(const std::vector<test::ProcessUsage>& usage, const std::string& what) {
  ASSERT_EQ(usage.size(), runs());
  EXPECT_EQ(test::growth(usage), "");
  test::stress_report("again: " + std::to_string(runs()) + " runs of " + std::to_string(kIters) +
                      " iterations, " + what + "; " + test::usage_text(usage.back()));
}

TEST(Again, ANewRunnerEachTime) {
  std::vector<test::ProcessUsage> usage;
  const std::size_t threads = threads_at_rest();
  for (std::size_t i = 0; i < runs(); ++i) {
    {
      const test::TempDir dir;
      test::FakeRun run(dir.path() / "run");
      run.options.max_iters = kIters;
      equip(run);
      run.train();
      ASSERT_EQ(run.runner().progress().iter, kIters);
    }
    usage.push_back(test::process_usage());
    ASSERT_EQ(usage.back().threads, threads) << "run " << i << " left a thread";
  }
  expect_flat(usage, "a new runner each");
}

TEST(Again, ARunnerThatResumesEachTime) {
  std::vector<test::ProcessUsage> usage;
  const std::size_t threads = threads_at_rest();
  const test::TempDir dir;
  for (std::size_t i = 1; i <= runs(); ++i) {
    {
      test::FakeRun run(dir.path() / "run");
      run.options.max_iters = static_cast<std::int64_t>(i) * kIters;
      run.options.resume = Resume::automatic();
      equip(run);
      run.train();
      ASSERT_EQ(run.runner().progress().iter, run.options.max_iters);
    }
    usage.push_back(test::process_usage());
    ASSERT_EQ(usage.back().threads, threads) << "run " << i << " left a thread";
  }
  expect_flat(usage, "each resumed from the one before");
}

TEST(Again, TheSameRunner) {
  std::vector<test::ProcessUsage> usage;
  const test::TempDir dir;
  test::FakeRun run(dir.path() / "run");
  run.options.max_iters = static_cast<std::int64_t>(runs()) * kIters;
  equip(run);
  run.parts.hooks.add(test::on_event<AfterTrainIter>([&](const AfterTrainIter& e, RunContext&) {
    const std::int64_t done = e.at.iter + 1;
    if (done % kIters == 0 && done < run.options.max_iters) run.runner().request_stop("again");
  }));
  for (std::size_t i = 1; i <= runs(); ++i) {
    run.train();
    ASSERT_EQ(run.runner().progress().iter, static_cast<std::int64_t>(i) * kIters);
    usage.push_back(test::process_usage());
  }
  expect_flat(usage, "the same runner");
}

}  // namespace
}  // namespace millrace
