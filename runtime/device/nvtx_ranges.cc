#include "millrace/runtime/device/nvtx_ranges.h"

#include <nvtx3/nvToolsExt.h>

namespace millrace {

void push_nvtx_range(const char* name) { nvtxRangePushA(name); }
void pop_nvtx_range() { nvtxRangePop(); }

}  // namespace millrace
