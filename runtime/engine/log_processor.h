// Turns the hub's scalars into the reference's log lines.
//
//   Epoch(train)  [1][ 2/20]  lr: 1.0000e-01  eta: 0:00:40  time: 1.00  data_time: 0.10  loss: 0.5
//
//   Iter(train) [11/50]  lr: 1.0000e-01  ...
//
//   Epoch(val)  [1][ 2/10]    eta: 0:00:01  ...
//
//   Epoch(val) [1][10/10]    accuracy: 0.9000  data_time: 0.0010  time: 0.0100
//
// Names that contain one of mean_names are averaged over the window, others show the latest value.
// Seconds in time fields; memory in MiB, only where a device reports it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/runtime/engine/message_hub.h"

namespace millrace {

struct LogProcessorOptions {
  std::size_t window_size = 10;
  int num_digits = 4;
  std::vector<std::string> mean_names = {"loss", "time", "data_time", "grad_norm"};
};

class LogProcessor {
 public:
  LogProcessor(LogProcessorOptions options, const MessageHub& hub);

  // After train iteration batch_idx (0-based) of the run's current counters.
  std::string train_line(const Progress& at, std::int64_t batch_idx, double memory_mib);
  // After validation or test iteration batch_idx of `batches`.
  std::string iter_line(LoopMode mode, const Progress& at, std::int64_t batch_idx,
                        std::int64_t batches);
  // After validation or test: every scalar of the mode.
  std::string epoch_line(LoopMode mode, const Progress& at, std::int64_t batches);

 private:
  struct Column {  // how one scalar of the hub is shown
    LoopMode mode;
    std::string label;  // the name without its mode
    bool mean;
    const HistoryBuffer* history;
  };
  void refresh();
  double shown(const Column& column) const;

  LogProcessorOptions options_;
  const MessageHub& hub_;
  std::vector<Column> columns_;  // in the hub's order; grows with it
  std::size_t known_ = 0;
};

// 3725 -> "1:02:05"; from a day on "1 day, 0:00:10", as Python's timedelta prints it.
std::string duration_text(double seconds);

}  // namespace millrace
