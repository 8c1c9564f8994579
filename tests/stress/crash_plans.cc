// The plans of crash_run.h.
#include <random>

#include "tests/stress/crash_run.h"

namespace millrace::test {
namespace {

using Then = CrashPlan::Then;

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed) {}
  std::int64_t from(std::int64_t first, std::int64_t last) {
    return first +
           static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(last - first + 1));
  }
  std::vector<double> scores(std::size_t count) {
    std::vector<double> scores;
    while (scores.size() < count) scores.push_back(static_cast<double>(from(1, 20)) / 20);
    return scores;
  }
  StageMode mode() {
    constexpr StageMode kModes[] = {StageMode::kLazy, StageMode::kEager, StageMode::kBlocking};
    return kModes[from(0, 2)];
  }
  // Whole sectors or not.
  std::size_t short_writes() {
    return static_cast<std::size_t>(from(2, 9) * 512 + from(0, 1) * 100);
  }

 private:
  std::mt19937_64 random_;
};

CheckpointHookOptions keep(std::int64_t last, StageMode mode) {
  CheckpointHookOptions hook;
  hook.interval = 1;
  hook.max_keep_ckpts = last;
  hook.mode = mode;
  return hook;
}

CrashPlan keep_one(Draw& draw) {
  CrashPlan plan{.name = "keeps one"};
  plan.hook = [mode = draw.mode()] { return keep(1, mode); };
  plan.epochs = draw.from(3, 5);
  plan.limits.write_bytes = draw.short_writes();
  return plan;
}

CrashPlan best_and_publish(Draw& draw) {
  CrashPlan plan{.name = "best, every N, published"};
  plan.hook = [mode = draw.mode(), every = draw.from(2, 3)] {
    CheckpointHookOptions hook = keep(2, mode);
    hook.keep_every = every;
    hook.save_best = {"acc"};
    hook.published_keys = {"meta", "state_dict"};
    return hook;
  };
  plan.epochs = draw.from(4, 6);
  plan.scores = draw.scores(6);
  return plan;
}

CrashPlan best_between(Draw& draw) {
  CrashPlan plan{.name = "best between saves"};
  plan.hook = [mode = draw.mode(), full = draw.from(0, 1) == 1, count = draw.from(1, 2)] {
    CheckpointHookOptions hook = keep(1, mode);
    hook.interval = 3;
    hook.by_epoch = false;
    hook.save_best = {"acc"};
    hook.save_best_full = full;
    hook.keep_best = count;
    hook.published_keys = {"state_dict"};
    return hook;
  };
  plan.epochs = 0;
  plan.iters = draw.from(9, 13);
  plan.val_interval = 2;
  plan.scores = draw.scores(7);
  return plan;
}

CrashPlan asked_and_stopped(Draw& draw) {
  CrashPlan plan{.name = "on demand, stopped, resumed"};
  plan.hook = [mode = draw.mode()] { return keep(1, mode); };
  plan.epochs = 4;
  plan.asks = {draw.from(1, 3), 6};
  plan.stop_after = draw.from(9, 11);
  plan.then = Then::kResume;
  return plan;
}

CrashPlan branch(Draw& draw) {
  CrashPlan plan{.name = "branch from an older file"};
  plan.hook = [mode = draw.mode(), last = draw.from(0, 1)] {
    return keep(last == 1 ? 3 : -1, mode);
  };
  plan.epochs = draw.from(3, 4);
  plan.then = Then::kBranch;
  return plan;
}

CrashPlan branch_with_best(Draw& draw) {
  CrashPlan plan{.name = "branch with best files"};
  plan.hook = [mode = draw.mode()] {
    CheckpointHookOptions hook = keep(2, mode);
    hook.save_best = {"acc"};
    return hook;
  };
  plan.epochs = 4;
  plan.scores = draw.scores(5);
  plan.then = Then::kBranch;
  return plan;
}

CrashPlan compaction(Draw& draw) {
  CrashPlan plan{.name = "compacted catalog"};
  plan.hook = [mode = draw.mode()] { return keep(1, mode); };
  plan.epochs = 4;
  plan.stop_after = 6;
  plan.asks = {2};
  plan.then = Then::kResume;
  plan.long_catalog = true;
  return plan;
}

CrashPlan beside(Draw& draw) {
  CrashPlan plan{.name = "out_dir"};
  plan.hook = [mode = draw.mode(), last = draw.from(1, 2)] { return keep(last, mode); };
  plan.epochs = draw.from(3, 4);
  plan.stop_after = draw.from(5, 7);
  plan.then = Then::kResume;
  plan.beside = true;
  return plan;
}

CrashPlan without_links(Draw& draw) {
  CrashPlan plan{.name = "no links"};
  plan.hook = [mode = draw.mode()] {
    CheckpointHookOptions hook = keep(1, mode);
    hook.save_best = {"acc"};
    return hook;
  };
  plan.epochs = 4;
  plan.scores = draw.scores(4);
  plan.limits.links = false;
  plan.then = Then::kBranch;
  return plan;
}

CrashPlan direct_blocks(Draw& draw) {
  CrashPlan plan{.name = "direct writes"};
  plan.hook = [mode = draw.mode()] { return keep(1, mode); };
  plan.epochs = draw.from(3, 4);
  plan.block_bytes = 4096;
  plan.floats = 300;  // files of several blocks
  plan.io_threads = 1;
  return plan;
}

CrashPlan busy(Draw& draw) {
  CrashPlan plan{.name = "saves that are replaced"};
  plan.hook = [last = draw.from(1, 2)] {
    CheckpointHookOptions hook = keep(last, StageMode::kLazy);
    hook.by_epoch = false;
    hook.on_busy = OnBusy::kReplace;
    return hook;
  };
  plan.epochs = 0;
  plan.iters = draw.from(6, 9);
  plan.io_threads = 3;
  return plan;
}

}  // namespace

std::vector<CrashPlan> crash_plans(std::uint64_t seed) {
  Draw draw(seed);
  return {keep_one(draw),      best_and_publish(draw), best_between(draw), asked_and_stopped(draw),
          branch(draw),        branch_with_best(draw), compaction(draw),   beside(draw),
          without_links(draw), direct_blocks(draw),    busy(draw)};
}

}  // namespace millrace::test
