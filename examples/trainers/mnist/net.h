// The demo's net: two convolutions with BatchNorm, then a wide classifier that makes a checkpoint
// with AdamW's state larger than 100 MB, so that there is something to overlap.
#pragma once

#include <cstdint>
#include <memory>

#include "millrace/runtime/torch/single_device.h"

// A strategy over a fresh net; call millrace::set_randomness(seed) first.
std::unique_ptr<millrace::Strategy> digit_classifier(std::int64_t width, double lr,
                                                     millrace::SingleDeviceOptions options);
