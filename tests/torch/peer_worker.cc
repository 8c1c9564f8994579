// Millrace's worker in the benchmarks against peers: trains, and saves when it is told to.
//
//   peer_worker <folder> <MiB of state> <threads> <batch size> [without_saves]
//
// The protocol of tests/bench/peers/windows.py, on standard input and output. Kinds of saves: lazy,
// eager, blocking (always durable), and torch_save, LibTorch's own. "without_saves" reserves no
// memory for them: what a run without checkpoints takes.
#include <fcntl.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/crc32.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/engine/checkpointer.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/runner.h"
#include "tests/torch/support/linear_stack.h"

namespace millrace {
namespace {

using SteadyClock = std::chrono::steady_clock;

double seconds(SteadyClock::duration time) { return std::chrono::duration<double>(time).count(); }

void fsync_path(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags);
  if (fd < 0 || ::fsync(fd) != 0) throw std::runtime_error("fsync " + path);
  ::close(fd);
}

template <class Value>
std::string json_list(const std::vector<Value>& values) {
  std::ostringstream text;
  for (const Value& value : values) text << (text.tellp() > 0 ? ", " : "") << value;
  return "[" + text.str() + "]";
}

// What one line asks for.
struct Window {
  std::int64_t steps = 0;
  std::string kind;
  bool durable = false;
  std::vector<std::int64_t> at;
  bool digest = false;
};

Window parse_window(std::istream& words) {
  Window window;
  std::string at;
  words >> window.steps >> window.kind >> window.durable >> at >> window.digest;
  if (!words) throw std::runtime_error("window <steps> <kind> <durable> <at> <digest>");
  if (at == "-") return window;
  std::stringstream places(at);
  for (std::string place; std::getline(places, place, ',');) window.at.push_back(std::stoll(place));
  return window;
}

class WindowsHook final : public Hook {
 public:
  explicit WindowsHook(bool saves) : saves_(saves) {}
  std::string_view name() const override { return "WindowsHook"; }
  void attach(RunContext& run) override {
    run_ = &run;
    if (saves_) store_ = &run.checkpointer.open_store(std::filesystem::path());
  }
  void subscribe(Subscriptions& on) override {
    on.awaited<AfterTrainIter>(&WindowsHook::step_done, this);
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { committed(e.row); });
  }

 private:
  struct Save {
    std::string path;
    double call = 0, written = 0;
  };

  Task<> step_done(const AfterTrainIter& event) {
    if (step_ == kStarting) {
      answer("{\"ready\": true}");
    } else {
      if (++step_ == 0) started_ = SteadyClock::now();
      if (std::count(window_.at.begin(), window_.at.end(), step_) > 0) co_await save(event.at.iter);
      if (step_ < window_.steps) co_return;
      co_await end_window();
    }
    co_await next_window();
  }

  Task<> save(std::int64_t iter) {
    if (window_.digest && digests_.empty()) digest();
    const std::string file = window_.kind + "_" + std::to_string(++count_);
    if (window_.kind == "torch_save") {
      save_with_torch(store_->location() + "/" + file + ".pt");
      co_return;
    }
    SaveRequest request;
    request.filename = file + ".pth";
    request.reason = "bench";
    request.mode = parse_stage_mode(window_.kind);
    request.epoch = 0;
    request.iter = iter + 1;
    request.store = store_;
    const auto called = SteadyClock::now();
    const std::size_t place = made_.size();
    made_.push_back({store_->location() + "/" + request.filename});
    co_await run_->checkpointer.save(std::move(request));
    made_[place].call = seconds(SteadyClock::now() - called);
  }

  void save_with_torch(const std::string& path) {
    const auto called = SteadyClock::now();
    {
      const CapturedState state = run_->strategy.capture(true);
      std::vector<torch::Tensor> tensors;
      for (const CapturedStorage& storage : state.storages) {
        tensors.push_back(torch::from_blob(const_cast<std::byte*>(storage.bytes.data()),
                                           {static_cast<std::int64_t>(storage.bytes.size())},
                                           torch::kUInt8));
      }
      torch::save(tensors, path);
    }
    if (window_.durable) {
      fsync_path(path, O_RDONLY);
      fsync_path(store_->location(), O_RDONLY | O_DIRECTORY);
    }
    const double time = seconds(SteadyClock::now() - called);
    made_.push_back({path, time, time});
  }

  void committed(const CheckpointRow& row) {
    for (Save& save : made_) {
      if (!save.path.ends_with("/" + row.name)) continue;
      save.written = seconds(row.times.durable - row.times.requested);
    }
  }

  void digest() {
    const CapturedState state = run_->strategy.capture(true);
    for (const CapturedStorage& storage : state.storages) {
      digests_.push_back(crc32(storage.bytes));
    }
    std::sort(digests_.begin(), digests_.end());
  }

  Task<> end_window() {
    const double trained = seconds(SteadyClock::now() - started_);
    co_await run_->checkpointer.drain();
    const double drained = seconds(SteadyClock::now() - started_);
    std::vector<double> calls, written;
    std::vector<std::string> paths;
    for (const Save& save : made_) {
      if (save.written == 0) throw std::runtime_error("not committed: " + save.path);
      calls.push_back(save.call);
      written.push_back(save.written);
      paths.push_back("\"" + save.path + "\"");
    }
    std::ostringstream text;
    text << "{\"train\": " << trained << ", \"total\": " << drained
         << ", \"calls\": " << json_list(calls) << ", \"written\": " << json_list(written)
         << ", \"files\": " << json_list(paths);
    if (window_.digest) text << ", \"digests\": " << json_list(digests_);
    answer(text.str() + "}");
    std::move(made_.begin(), made_.end(), std::back_inserter(old_));
    made_.clear();
    digests_.clear();
  }

  // Blocks the train thread: between windows nothing shall run.
  Task<> next_window() {
    for (std::string line; std::getline(std::cin, line);) {
      std::istringstream words(line);
      std::string command;
      words >> command;
      if (command == "window") {
        window_ = parse_window(words);
        step_ = kSettling;
        co_return;
      }
      if (command == "quit") break;
      co_await clean();
    }
    run_->request_stop("told to");
  }

  Task<> clean() {
    std::vector<std::string> names;
    for (const Save& save : old_) {
      const std::filesystem::path path(save.path);
      if (path.extension() == ".pth") {
        names.push_back(path.filename());
      } else {
        std::filesystem::remove(path);
      }
    }
    old_.clear();
    if (!names.empty()) run_->checkpointer.retire(*store_, std::move(names));
    co_await run_->checkpointer.drain();
    answer("{\"clean\": true}");
  }

  static void answer(const std::string& line) { std::cout << line << std::endl; }

  static constexpr std::int64_t kStarting = -2, kSettling = -1;
  const bool saves_;
  RunContext* run_ = nullptr;
  CheckpointStore* store_ = nullptr;
  Window window_;
  std::int64_t step_ = kStarting;  // of the window, after the settling one
  SteadyClock::time_point started_;
  std::uint64_t count_ = 0;
  std::vector<Save> made_, old_;  // in this window, and since the last clean
  std::vector<std::uint32_t> digests_;
};

void train(const std::filesystem::path& folder, std::int64_t mib, int threads, std::int64_t batch,
           bool saves) {
  set_randomness(1);
  Parts parts = test::linear_stack_parts(mib, {.threads = threads}, batch);
  parts.hooks.add(std::make_unique<WindowsHook>(saves));
  RunOptions options;
  options.work_dir = folder;
  options.max_iters = 1'000'000'000;
  options.seed = 1;
  options.log_console = false;
  Runner runner(std::move(options), std::move(parts));
  TrainContext().run(runner.train());
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: peer_worker <folder> <MiB> <threads> <batch> [without_saves]\n");
    return 2;
  }
  millrace::train(argv[1], std::stoll(argv[2]), std::stoi(argv[3]), std::stoll(argv[4]), argc == 5);
}
