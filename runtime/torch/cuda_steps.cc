#include "millrace/runtime/torch/cuda_steps.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <utility>

#include "millrace/runtime/async/error.h"
#include "millrace/runtime/device/cuda_device.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/step_streams.h"
#include "millrace/runtime/torch/tensor_bytes.h"

namespace millrace {
namespace {

constexpr bool kHighPriority = true;

class CudaSteps final : public StepDevice {
 public:
  // The stream is LibTorch's, because its allocator and its autograd know only those.
  CudaSteps(std::unique_ptr<Device> device, int index)
      : index_(static_cast<c10::DeviceIndex>(index)),
        device_(std::move(device)),
        stream_(c10::cuda::getStreamFromPool(kHighPriority, index_)),
        train_(borrow_cuda_stream(*device_, stream_.stream())),
        streams_(*train_),
        numbers_(streams_) {}

  c10::Device place() const override { return {c10::DeviceType::CUDA, index_}; }
  DeviceStream* train_stream() override { return train_.get(); }

  void enter() override {
    c10::cuda::set_device(index_);
    c10::cuda::device_synchronize();  // tensors that other streams are still writing
    c10::cuda::setCurrentCUDAStream(stream_);
  }

  std::vector<at::Tensor> bring(const Batch& batch) override {
    check_current();
    parts_.clear();
    for (const Batch::Field& field : batch.fields()) parts_.push_back(field.bytes);
    const auto addresses = streams_.bring(parts_);
    std::vector<at::Tensor> tensors;
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      TensorView view = batch.fields()[i].view();
      view.bytes = {addresses[i], view.bytes.size()};
      tensors.push_back(tensor_over(view, place()));
    }
    return tensors;
  }
  void used() override { streams_.used(); }
  void stepped() override { streams_.stepped(); }
  std::span<const StreamSpan> spans() override { return streams_.spans(); }

  // A cast, where there is one, gives memory of the train stream, on which the copy runs too: it
  // may be freed at once.
  Scalar send_back(std::string_view name, const at::Tensor& value) override {
    const at::Tensor number = value.detach().to(at::kFloat);
    return {name, &numbers_, streams_.send(bytes_of(number))};
  }
  void fetch(const at::Tensor& tensor) override {
    const at::Tensor dense = tensor.detach().contiguous();
    fetched_type_ = dtype_of(dense);
    fetched_sizes_ = dense.sizes().vec();
    streams_.fetch(bytes_of(dense), dense.nbytes());
  }
  TensorView received() override { return {fetched_type_, fetched_sizes_, streams_.received()}; }

  BatchMemory* batch_memory() override { return &streams_; }
  const DeviceEvent* pending() override { return streams_.pending(); }
  const DeviceEvent* unread() override { return streams_.unread(); }
  Task<> drain(EventWaiter& waiter) override { return streams_.drain(waiter); }

  void translate_error() const override {
    try {
      throw;
    } catch (const c10::AcceleratorError& error) {
      const int code = error.get_error_code();
      throw DeviceError("LibTorch", device_->name(), code, error.what_without_backtrace(),
                        is_sticky_cuda_error(code));
    } catch (const c10::OutOfMemoryError& error) {
      throw DeviceError("LibTorch", device_->name(), cudaErrorMemoryAllocation,
                        error.what_without_backtrace(), false);
    } catch (...) {  // none of LibTorch's
    }
  }

  double peak_memory_mib() override {
    constexpr double kMiB = 1 << 20;
    const auto aggregate = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index_);
    c10::cuda::CUDACachingAllocator::resetPeakStats(index_);
    return static_cast<double>(stats.allocated_bytes[aggregate].peak) / kMiB;
  }

 private:
  class Numbers final : public ScalarSource {
   public:
    explicit Numbers(const StepStreams& streams) : streams_(streams) {}
    std::optional<double> try_read(std::uint32_t ticket) const override {
      return streams_.number(ticket);
    }

   private:
    const StepStreams& streams_;
  };
  static_assert(StepStreams::kKept >= ScalarSource::kKept);

  void check_current() const {
    if (c10::cuda::current_device() != index_ ||
        c10::cuda::getCurrentCUDAStream(index_) != stream_) {
      throw Error(
          "the train thread's current CUDA device or stream was changed: give every runner "
          "on a GPU a thread of its own, and restore in a hook what it sets");
    }
  }

  static const std::byte* bytes_of(const at::Tensor& tensor) {
    return static_cast<const std::byte*>(tensor.const_data_ptr());
  }

  const c10::DeviceIndex index_;
  const std::unique_ptr<Device> device_;
  const c10::cuda::CUDAStream stream_;
  const std::unique_ptr<DeviceStream> train_;
  StepStreams streams_;
  Numbers numbers_;
  std::vector<std::span<const std::byte>> parts_;
  DType fetched_type_ = DType::kFloat32;
  std::vector<std::int64_t> fetched_sizes_;
};

}  // namespace

std::unique_ptr<StepDevice> open_cuda_steps(std::unique_ptr<Device> device, int index) {
  return std::make_unique<CudaSteps>(std::move(device), index);
}

}  // namespace millrace
