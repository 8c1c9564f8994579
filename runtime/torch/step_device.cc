#include "millrace/runtime/torch/step_device.h"

#include <ATen/core/Tensor.h>

#include <charconv>
#include <optional>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_device.h"
#include "millrace/runtime/torch/cuda_steps.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

class HostSteps final : public StepDevice {
 public:
  c10::Device place() const override { return at::kCPU; }
  DeviceStream* train_stream() override { return nullptr; }
  void enter() override {}

  std::vector<at::Tensor> bring(const Batch& batch) override {
    std::vector<at::Tensor> tensors;
    for (const Batch::Field& field : batch.fields()) tensors.push_back(tensor_over(field.view()));
    return tensors;
  }
  void used() override {}
  void stepped() override {}
  std::span<const StreamSpan> spans() override { return {}; }

  Scalar send_back(std::string_view name, const at::Tensor& value) override {
    return {name, &values_, values_.add(value.item<double>())};
  }
  void fetch(const at::Tensor& tensor) override { fetched_ = tensor.contiguous(); }
  TensorView received() override {
    const auto bytes = static_cast<std::size_t>(fetched_.nbytes());
    return {dtype_of(fetched_),
            {fetched_.sizes().data(), fetched_.sizes().size()},
            {static_cast<const std::byte*>(fetched_.const_data_ptr()), bytes}};
  }
  BatchMemory* batch_memory() override { return nullptr; }
  const DeviceEvent* pending() override { return nullptr; }
  const DeviceEvent* unread() override { return nullptr; }
  Task<> drain(EventWaiter&) override { co_return; }
  void translate_error() const override {}
  double peak_memory_mib() override { return 0; }

 private:
  class Values final : public ScalarSource {
   public:
    std::uint32_t add(double value) {
      values_[next_ % kKept] = value;
      return next_++;
    }
    std::optional<double> try_read(std::uint32_t ticket) const override {
      return values_[ticket % kKept];
    }

   private:
    double values_[kKept] = {};
    std::uint32_t next_ = 0;
  };

  Values values_;
  at::Tensor fetched_;
};

// The index of a GPU, or nothing for the host.
std::optional<int> gpu_index(std::string_view device) {
  constexpr std::string_view kCuda = "cuda";
  if (device == "cpu") return std::nullopt;
  if (device == kCuda) return 0;
  int index = 0;
  if (device.starts_with("cuda:")) {
    const char* const end = device.data() + device.size();
    const auto read = std::from_chars(device.data() + kCuda.size() + 1, end, index);
    if (read.ec == std::errc() && read.ptr == end && index >= 0) return index;
  }
  const std::string_view kind = device.substr(0, device.find(':'));
  throw ConfigError(
      "device", "unknown device '" + std::string(device) + "'; valid: cpu, cuda, cuda:<number>",
      kind == "gpu" ? std::string(kCuda) : nearest_name(kind, {"cpu", std::string(kCuda)}));
}

}  // namespace

StepDevice::~StepDevice() = default;

std::unique_ptr<StepDevice> open_step_device(std::string_view device) {
  const std::optional<int> gpu = gpu_index(device);
  if (!gpu) return std::make_unique<HostSteps>();
  return open_cuda_steps(open_cuda_device(*gpu), *gpu);
}

void check_device(std::string_view device) {
  if (const std::optional<int> gpu = gpu_index(device)) open_cuda_device(*gpu);
}

}  // namespace millrace
