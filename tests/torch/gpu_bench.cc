// Snapshots of a GPU's memory, measured on one: `make gpu-bench`. Without one it says why and ends.
//
//   gpu_bench [raw.json] [MiB, default 512] [rounds, default 9]
//
// 1. Staging against one plain pinned copy of the same bytes, and 10,000 small tensors likewise;
//    the plain copy twice is the noise floor. Interleaved; medians.
// 2. Training with lazy saves: which share of a snapshot's copy ran beside work of the train stream
//    (both by events), and how much longer a batch takes on the stream while one is under way.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "millrace/events/checkpoint_events.h"
#include "millrace/hooks/checkpoint_hook.h"
#include "millrace/runtime/async/error.h"
#include "millrace/runtime/async/train_context.h"
#include "millrace/runtime/device/cuda_device.h"
#include "millrace/runtime/device/pinned_buffer.h"
#include "millrace/runtime/engine/run_context.h"
#include "millrace/runtime/engine/runner.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/torch/support/linear_stack.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

double ms(std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1e6; }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

double time_ms(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return ms(Clock::now() - start);
}

// ---- copies

void measure_copies(Device& device, const char* name, std::uint64_t tensor_bytes,
                    std::uint64_t tensors, int rounds, std::ofstream& json) {
  const auto train = device.make_stream(StreamPriority::kHigh);
  const auto memory = device.allocate(tensor_bytes * tensors);
  PinnedBuffer plain(device);
  plain.reserve(memory->size());
  std::vector<CapturedStorage> state(tensors);
  for (std::size_t i = 0; i < state.size(); ++i) {
    state[i].bytes = memory->bytes().subspan(i * tensor_bytes, tensor_bytes);
    state[i].on_device = true;
  }
  Staging staging;
  staging.attach(*train);
  staging.reserve(state);
  const auto copy = [&] {
    train->copy_to_host(plain.bytes().first(memory->size()), memory->data());
    train->synchronize();
  };
  const auto stage = [&] {
    const auto snapshot = staging.begin(state, StageMode::kLazy);
    snapshot->wait_all();
    staging.gate().writable_all();
  };
  std::vector<double> plain_ms, ratios, noise;
  for (int round = -2; round < rounds; ++round) {
    const double first = time_ms(copy), staged = time_ms(stage), again = time_ms(copy);
    if (round < 0) continue;
    plain_ms.push_back(first);
    ratios.push_back(staged / first);
    noise.push_back(again / first);
    json << "{\"copies\":\"" << name << "\",\"plain_ms\":" << first << ",\"staged_ms\":" << staged
         << ",\"again_ms\":" << again << "},\n";
  }
  std::printf("| %s | %.2f | %.1f | %.2f (%.2f to %.2f) | %.2f |\n", name, median(plain_ms),
              static_cast<double>(memory->size()) / 1e6 / median(plain_ms), median(ratios),
              *std::min_element(ratios.begin(), ratios.end()),
              *std::max_element(ratios.begin(), ratios.end()), median(noise));
  train->synchronize();
}

// ---- overlap

class Recorder final : public Hook {
 public:
  std::string_view name() const override { return "Recorder"; }
  void attach(RunContext& run) override { run_ = &run; }
  void subscribe(Subscriptions& on) override {
    on.every<BeforeTrain>([this](const BeforeTrain&) { run_->strategy.stream_spans(); });
    on.every<CheckpointCommitted>([this](const CheckpointCommitted& e) { saves.push_back(e.row); });
    on.every<AfterRun>([this](const AfterRun&) {
      const auto all = run_->strategy.stream_spans();
      spans.assign(all.begin(), all.end());
    });
  }
  std::vector<CheckpointRow> saves;
  std::vector<StreamSpan> spans;

 private:
  RunContext* run_ = nullptr;
};

std::chrono::nanoseconds shared(const StreamSpan& span, const CheckpointRow& save) {
  const auto first = std::max(span.first, save.times.capture_started);
  const auto last = std::min(span.last, save.times.staged);
  return std::max(last - first, Clock::duration::zero());
}

void measure_overlap(std::int64_t mib, std::ofstream& json) {
  const auto folder = std::filesystem::temp_directory_path() / "millrace-gpu-bench";
  constexpr std::int64_t kBatch = 4096, kBatches = 8;
  Parts parts = test::linear_stack_parts(mib, {.device = "cuda"}, kBatch, kBatches);
  parts.hooks.add(std::make_unique<CheckpointHook>(
      CheckpointHookOptions{.interval = 20, .by_epoch = false, .mode = StageMode::kLazy}));
  auto hook = std::make_unique<Recorder>();
  Recorder& recorder = *hook;
  parts.hooks.add(std::move(hook));
  RunOptions options;
  options.work_dir = folder;
  options.max_iters = 200;
  options.log_console = false;
  Runner runner(std::move(options), std::move(parts));
  TrainContext().run(runner.train());

  std::vector<double> shares, beside, alone;
  for (const CheckpointRow& save : recorder.saves) {
    std::chrono::nanoseconds busy{0};
    for (const StreamSpan& span : recorder.spans) busy += shared(span, save);
    shares.push_back(ms(busy) / ms(save.times.staged - save.times.capture_started));
  }
  for (const StreamSpan& span : recorder.spans) {
    const bool saving = std::any_of(recorder.saves.begin(), recorder.saves.end(),
                                    [&](auto& save) { return shared(span, save).count() > 0; });
    (saving ? beside : alone).push_back(ms(span.last - span.first));
  }
  std::printf("| %lld | %.2f | %.2f | %.2f | %.2f |\n", static_cast<long long>(mib), median(shares),
              median(alone), median(beside), median(beside) / median(alone));
  json << "{\"overlap_mib\":" << mib << ",\"share\":" << median(shares)
       << ",\"batch_ms\":" << median(alone) << ",\"batch_beside_ms\":" << median(beside) << "},\n";
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  std::unique_ptr<millrace::Device> device;
  try {
    device = millrace::open_cuda_device(0);
  } catch (const millrace::ConfigError& error) {
    std::printf("gpu_bench is skipped: %s\n", error.what());
    return 0;
  }
  std::ofstream json(argc > 1 ? argv[1] : "/dev/null");
  const std::uint64_t mib = argc > 2 ? std::stoul(argv[2]) : 512;
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  json << "[\n";
  std::printf(
      "| copies to pinned memory | one plain copy ms | GB/s | staged / plain: median (min to max) "
      "| plain / plain |\n|---|---|---|---|---|\n");
  millrace::measure_copies(*device, "large tensors", std::uint64_t{8} << 20, mib / 8, rounds, json);
  millrace::measure_copies(*device, "10,000 of 1 KiB", 1 << 10, 10'000, rounds, json);
  std::printf(
      "\n| state MiB | share of the snapshot beside train-stream work | batch ms | batch ms beside "
      "a snapshot | ratio |\n|---|---|---|---|---|\n");
  millrace::measure_overlap(static_cast<std::int64_t>(mib), json);
  json << "{}]\n";
}
