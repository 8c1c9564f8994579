// LibTorch's tensors in the content of a checkpoint: for hooks that keep tensors of their own.
//
//     on.every<BeforeSaveCheckpoint>([this](const BeforeSaveCheckpoint& event) {
//       pickle::Value averages = pickle::Value::ordered_dict();
//       for (const auto& [name, average] : averages_)
//         averages.set(name, add_tensor(event.content, average, Mutation::kBehindGate, name));
//       event.content.set("ema_state_dict", averages);
//     });
//
// Whoever writes a tensor that was added behind the gate asks StateGate::writable for its
// storage_bytes() first; the version counters tell when somebody did not.
#pragma once

#include <string>

#include "millrace/io/pickle_value.h"
#include "millrace/runtime/engine/checkpoint_content.h"

namespace at {
class Tensor;
}

namespace millrace {

// The leaf of a tensor for the checkpoint that is being saved; see CheckpointContent::tensor. A
// tensor that is not contiguous is copied at once. `name` is for messages.
pickle::Value add_tensor(CheckpointContent& content, const at::Tensor& tensor, Mutation mutation,
                         std::string name = "a hook's tensor");

// The tensor of a leaf of the checkpoint that was loaded, over the file's bytes: copy what is to
// outlive the event. Throws CheckpointError when the value is no tensor of the file.
at::Tensor tensor_of(const CheckpointContent& content, const pickle::Value& leaf);

}  // namespace millrace
