// The demo's net: two convolutions with BatchNorm, then a wide classifier that makes a checkpoint
// with AdamW's state larger than 100 MB, so that there is something to overlap.
#pragma once

#include <cstdint>
#include <memory>

#include "millrace/runtime/engine/strategy.h"

// A strategy over a fresh net; call millrace::set_randomness(seed) first.
std::unique_ptr<millrace::Strategy> digit_classifier(std::int64_t width, double lr, int threads);
