// Where a model lives and its steps run, for a strategy on LibTorch.
//
//   cpu       batches are used where they are, and a loss is a number when the step is over
//   cuda:1    one stream runs the steps, pinned buffers carry batches to the device and losses and
//             scores back, and no call of a step waits for the device: pending() says what to
//
// Made by open_step_device(), on any thread; everything else belongs to the train context. Owned by
// the strategy, and outlives its tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/stage_events.h"
#include "millrace/runtime/async/task.h"
#include "millrace/runtime/device/stream_timeline.h"
#include "millrace/runtime/engine/batch.h"

namespace at {
class Tensor;
}
namespace c10 {
struct Device;
}

namespace millrace {

class BatchMemory;
class DeviceEvent;
class DeviceStream;
class EventWaiter;

class StepDevice {
 public:
  virtual ~StepDevice();

  virtual c10::Device place() const = 0;
  // The stream of all steps, or null on the host. The same one as long as this lives.
  virtual DeviceStream* train_stream() = 0;
  // What this thread gives LibTorch to do goes to that stream, and its new tensors belong to it,
  // from now on. After it, what other streams were given before is done. Blocks: before training.
  virtual void enter() = 0;

  // The batch's fields as tensors of the device, until the next call. Whoever keeps one longer
  // clones it. Throws Error when somebody changed what enter() set.
  virtual std::vector<at::Tensor> bring(const Batch& batch) = 0;
  // All that reads the tensors of the last bring() has been put in.
  virtual void used() = 0;

  // The optimizer has put in its kernels.
  virtual void stepped() = 0;
  // See Strategy::stream_spans().
  virtual std::span<const StreamSpan> spans() = 0;

  // A number of the step that was just put in, of one element. The name outlives the result.
  virtual Scalar send_back(std::string_view name, const at::Tensor& value) = 0;
  // The tensor's values on the host, contiguous; received() has them, until the next call.
  virtual void fetch(const at::Tensor& tensor) = 0;
  virtual TensorView received() = 0;
  // See Strategy: the functions of the same names.
  virtual BatchMemory* batch_memory() = 0;
  virtual const DeviceEvent* pending() = 0;
  virtual const DeviceEvent* unread() = 0;
  // See Strategy::drain().
  virtual Task<> drain(EventWaiter& waiter) = 0;

  // In a handler: throws a DeviceError for what is being handled if that is an error of LibTorch's
  // about the device.
  virtual void translate_error() const = 0;

  // MiB of the device's memory, the peak since the last call; 0 on the host.
  virtual double peak_memory_mib() = 0;
};

// "cpu", "cuda" (the first GPU), "cuda:<n>". Throws ConfigError for `device`: an unknown one, with
// the nearest name; a GPU in a build without CUDA, without a driver or with one that is too old,
// or one that is not there.
std::unique_ptr<StepDevice> open_step_device(std::string_view device);
// The same check for a program's options, before anything is read or made.
void check_device(std::string_view device);

}  // namespace millrace
