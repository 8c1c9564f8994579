#include "millrace/runtime/torch/single_device.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <torch/nn/module.h>

#include <cstring>
#include <mutex>
#include <thread>
#include <type_traits>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/staging/state_gate.h"
#include "millrace/runtime/torch/state_capture.h"
#include "millrace/runtime/torch/state_dict.h"
#include "millrace/runtime/torch/step_device.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

// Of a device, or of the host: random operations of a tensor draw from that of its place.
class GeneratorState {
 public:
  explicit GeneratorState(at::Device place)
      : generator_(at::globalContext().defaultGenerator(place)), lock_(generator_.mutex()) {}

  std::string bytes() const {
    const at::Tensor state = generator_.get_state();
    return {static_cast<const char*>(state.const_data_ptr()), state.nbytes()};
  }
  void set(std::string_view bytes) {
    at::Tensor state = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
    std::memcpy(state.mutable_data_ptr(), bytes.data(), bytes.size());
    generator_.set_state(state);
  }

 private:
  at::Generator generator_;
  std::scoped_lock<std::mutex> lock_;
};

// The module's tensors move to the device, whose stream owns them.
ModelFunctions moved(ModelFunctions functions, StepDevice& device) {
  device.enter();
  if (functions.module) functions.module->to(device.place());
  return functions;
}

class SingleDevice final : public Strategy {
 public:
  SingleDevice(ModelFunctions functions, const OptimizerFactory& optimizer,
               SingleDeviceOptions options)
      : device_(open_step_device(options.device)),
        model_(moved(std::move(functions), *device_)),
        options_(std::move(options)),
        optimizer_(optimizer(parameters())),
        state_(model_, *optimizer_) {}

  void prepare(std::uint64_t seed, StateGate& gate) override {
    gate_ = &gate;
    device_->enter();  // of another thread than the constructor's
    if (options_.threads > 0) at::set_num_threads(options_.threads);
    set_randomness(seed);
  }

  StepOutput forward_backward(const Batch& batch) override {
    check(batch);
    model_.set_training(true);
    on_device([&] {
      const std::vector<at::Tensor> fields = device_->bring(batch);
      const at::Tensor loss = model_.loss()(model_.forward()(fields[0]), fields[1]);
      loss.backward();
      scalar_ = device_->send_back("loss", loss);
      device_->used();
    });
    return {{&scalar_, 1}, true};
  }

  void optimizer_step() override {
    on_device([this] {
      optimizer_->step(*gate_);
      device_->stepped();
    });
  }

  void predict(const Batch& batch) override {
    check(batch);
    const at::NoGradGuard no_grad;
    model_.set_training(false);
    on_device([&] {
      device_->fetch(model_.forward()(device_->bring(batch)[0]));
      device_->used();
    });
  }

  TensorView scores() override { return device_->received(); }

  BatchMemory* batch_memory() override { return device_->batch_memory(); }
  const DeviceEvent* pending() override { return device_->pending(); }
  const DeviceEvent* unread() override { return device_->unread(); }
  Task<> drain(EventWaiter& waiter) override { return device_->drain(waiter); }

  std::span<double> learning_rates() override { return optimizer_->learning_rates(); }

  CapturedState capture(bool with_optimizer) override {
    return on_device([&] { return state_.capture(with_optimizer); });
  }

  std::string save_rng() const override {
    std::string bytes = GeneratorState(at::kCPU).bytes();
    if (!on_host()) bytes += GeneratorState(device_->place()).bytes();
    return bytes;
  }

  void load_rng(std::string_view bytes) override {
    GeneratorState host(at::kCPU);
    const std::size_t size = host.bytes().size();
    if (bytes.size() < size) {
      throw Error("the random generator's state has " + std::to_string(bytes.size()) +
                  " bytes, LibTorch's has " + std::to_string(size));
    }
    host.set(bytes.substr(0, size));
    // A run that goes on on another kind of device has no state for that: its seed's.
    if (!on_host() && bytes.size() > size) {
      GeneratorState(device_->place()).set(bytes.substr(size));
    }
  }

  LoadReport load_model(const CheckpointFile& file, const LoadOptions& options) override {
    const ModelMatch match = match_model(model_, file.state_dict());
    if (options.strict && !match.exact()) {
      throw CheckpointError(file.path(), "is of another model: " + match.text());
    }
    if (match.pairs.empty()) {
      throw CheckpointError(file.path(), "none of its tensors fits this model: " + match.text());
    }
    std::vector<at::Tensor> sources;
    for (const ModelMatch::Pair& pair : match.pairs)
      sources.push_back(tensor_over(file, pair.leaf));
    const at::NoGradGuard no_grad;
    on_device([&] {
      for (std::size_t i = 0; i < sources.size(); ++i) {
        at::Tensor target = *match.pairs[i].entry.tensor;
        gate_->writable(storage_bytes(target));
        target.copy_(sources[i]);
      }
    });
    LoadReport report;
    if (!match.exact()) report.warnings.push_back(file.path() + ": " + match.text());
    return report;
  }

  void load_optimizer(const CheckpointFile& file) override {
    on_device([&] { load_optimizer_tree(*optimizer_, file, *gate_); });
  }

  DeviceStream* train_stream() override { return device_->train_stream(); }
  std::span<const StreamSpan> stream_spans() override { return device_->spans(); }
  double peak_memory_mib() override { return device_->peak_memory_mib(); }
  bool uses_every_core() const override {
    return on_host() &&
           at::get_num_threads() >= static_cast<int>(std::thread::hardware_concurrency());
  }

 private:
  static void check(const Batch& batch) {
    if (batch.fields().size() < 2) {
      throw ConfigError("train", "a batch needs two fields, the input and the target; it has " +
                                     std::to_string(batch.fields().size()));
    }
  }

  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> parameters;
    for (const Model::Entry& entry : model_.entries()) {
      if (!entry.buffer) parameters.push_back(*entry.tensor);
    }
    return parameters;
  }

  bool on_host() const { return device_->place().is_cpu(); }

  template <class Work>
  std::invoke_result_t<Work> on_device(Work work) {
    try {
      return work();
    } catch (...) {
      device_->translate_error();
      throw;
    }
  }

  std::unique_ptr<StepDevice> device_;
  Model model_;
  SingleDeviceOptions options_;
  std::unique_ptr<Optimizer> optimizer_;
  StateCapture state_;
  StateGate* gate_ = nullptr;
  Scalar scalar_;
};

}  // namespace

std::unique_ptr<Strategy> make_single_device(ModelFunctions model, OptimizerFactory optimizer,
                                             SingleDeviceOptions options) {
  return std::make_unique<SingleDevice>(std::move(model), optimizer, std::move(options));
}

at::Tensor cross_entropy(const at::Tensor& scores, const at::Tensor& labels) {
  return at::cross_entropy_loss(scores, labels);
}

void set_randomness(std::uint64_t seed) { at::manual_seed(seed); }

}  // namespace millrace
