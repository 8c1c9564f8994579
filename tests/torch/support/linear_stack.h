// The model of the benchmarks: square layers and AdamW, as much state as asked for.
#pragma once

#include <cstdint>

#include "millrace/runtime/engine/runner.h"
#include "millrace/runtime/torch/single_device.h"

namespace millrace::test {

// Strategy and loader, no hooks. `mib`: weights and moments together, in layers of 12 MiB, at least
// one. Every batch is one of `batches`.
Parts linear_stack_parts(std::int64_t mib, const SingleDeviceOptions& device, std::int64_t batch,
                         std::int64_t batches = 4);

}  // namespace millrace::test
