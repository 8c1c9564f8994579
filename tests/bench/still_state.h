// A strategy whose state nobody changes: what a save costs the train thread then is Millrace's own.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "millrace/runtime/engine/dataset.h"
#include "millrace/runtime/engine/strategy.h"

namespace millrace::bench {

// `mib` of weights in storages of 8 MiB; steps do nothing.
std::unique_ptr<Strategy> still_state(std::size_t mib);

// As many samples as iterations of batch 1.
std::shared_ptr<const Dataset> numbers(std::size_t count);

}  // namespace millrace::bench
