#include "millrace/runtime/engine/strategy.h"

namespace millrace {

Task<> Strategy::drain(EventWaiter&) { co_return; }

}  // namespace millrace
