#include "millrace/runtime/engine/log_processor.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

// The counters while iteration `iter` (0-based) of 20 epochs or 50 iterations runs.
Progress at_epoch(std::int64_t epoch, std::int64_t iter) {
  return {epoch, iter, 20, 400, 20, true};
}
Progress at_iter(std::int64_t iter) { return {0, iter, 1, 50, 20, false}; }

// The hub as the default hooks fill it: lr first, then the timer, then the outputs.
struct Hub {
  Hub() {
    hub.scalar("train/lr").update(0.1);
    hub.scalar("train/data_time").update(1);
    hub.scalar("train/time").update(1);
    hub.scalar("train/loss_cls").update(1);
    hub.info("eta") = 40.0;
  }
  std::string train(const Progress& at, std::int64_t batch_idx, double memory = 0) {
    return LogProcessor({}, hub).train_line(at, batch_idx, memory);
  }
  MessageHub hub;
};

TEST(LogProcessor, TrainLinesAreTheReferences) {
  Hub hub;
  EXPECT_EQ(hub.train(at_epoch(0, 1), 1),
            "Epoch(train)  [1][ 2/20]  lr: 1.0000e-01  eta: 0:00:40  time: 1.0000  "
            "data_time: 1.0000  loss_cls: 1.0000");
  EXPECT_EQ(hub.train(at_iter(10), 10),
            "Iter(train) [11/50]  lr: 1.0000e-01  eta: 0:00:40  time: 1.0000  "
            "data_time: 1.0000  loss_cls: 1.0000");
  EXPECT_EQ(hub.train(at_epoch(9, 199), 19).substr(0, 26), "Epoch(train) [10][20/20]  ");
}

TEST(LogProcessor, MemoryOnlyWhereADeviceReportsIt) {
  Hub hub;
  EXPECT_EQ(hub.train(at_epoch(0, 1), 1, 100.7),
            "Epoch(train)  [1][ 2/20]  lr: 1.0000e-01  eta: 0:00:40  time: 1.0000  "
            "data_time: 1.0000  memory: 100  loss_cls: 1.0000");
}

TEST(LogProcessor, MeansOverTheWindowElseTheLatest) {
  Hub hub;
  for (int i = 0; i < 10; ++i) {
    hub.hub.scalar("train/loss_cls").update(2);
    hub.hub.scalar("train/accuracy").update(i);
    hub.hub.scalar("train/grad_norm").update(i);
  }
  const std::string line = hub.train(at_iter(0), 0);
  EXPECT_TRUE(line.ends_with("  loss_cls: 2.0000  accuracy: 9.0000  grad_norm: 4.5000")) << line;
}

TEST(LogProcessor, SeesScalarsThatComeLater) {
  Hub hub;
  LogProcessor processor({.num_digits = 2}, hub.hub);
  EXPECT_TRUE(processor.train_line(at_iter(0), 0, 0).ends_with("loss_cls: 1.00"));
  hub.hub.scalar("train/extra").update(0.125);
  hub.hub.scalar("val/accuracy").update(0.5);
  hub.hub.scalar("trainer/x").update(7);
  hub.hub.scalar("train/silent");
  EXPECT_TRUE(processor.train_line(at_iter(1), 1, 0).ends_with("loss_cls: 1.00  extra: 0.12"));
}

TEST(LogProcessor, ValidationLinesAreTheReferences) {
  Hub hub;
  hub.hub.scalar("val/data_time").update(0.25);
  hub.hub.scalar("val/time").update(0.5);
  hub.hub.scalar("val/accuracy").update(0.9);
  LogProcessor processor({}, hub.hub);
  // epoch counts what is finished: it is already 1 in the validation after the first one.
  EXPECT_EQ(processor.iter_line(LoopMode::kVal, at_epoch(1, 20), 1, 10),
            "Epoch(val)  [1][ 2/10]    eta: 0:00:40  time: 0.5000  data_time: 0.2500  ");
  EXPECT_EQ(processor.epoch_line(LoopMode::kVal, at_epoch(1, 20), 10),
            "Epoch(val) [1][10/10]    accuracy: 0.9000  data_time: 0.2500  time: 0.5000");
  EXPECT_EQ(processor.iter_line(LoopMode::kVal, at_iter(10), 1, 10),
            "Iter(val) [ 2/10]    eta: 0:00:40  time: 0.5000  data_time: 0.2500  ");
  EXPECT_EQ(processor.epoch_line(LoopMode::kVal, at_iter(10), 10),
            "Iter(val) [10/10]    accuracy: 0.9000  data_time: 0.2500  time: 0.5000");
}

TEST(DurationText, IsPythonsTimedelta) {
  EXPECT_EQ(duration_text(0), "0:00:00");
  EXPECT_EQ(duration_text(59.99), "0:00:59");
  EXPECT_EQ(duration_text(3725), "1:02:05");
  EXPECT_EQ(duration_text(86410), "1 day, 0:00:10");
  EXPECT_EQ(duration_text(2 * 86400 + 3600), "2 days, 1:00:00");
  EXPECT_EQ(duration_text(1.0 / 0.0), "0:00:00");
}

}  // namespace
}  // namespace millrace
