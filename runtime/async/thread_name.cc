#include "millrace/runtime/async/thread_name.h"

#ifdef __linux__
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace millrace {

#ifdef __linux__

void name_this_thread(const std::string& name) noexcept {
  char text[16] = {};
  name.copy(text, sizeof(text) - 1);
  pthread_setname_np(pthread_self(), text);
}

void lower_this_threads_priority() noexcept {
  // On Linux both calls act on one thread when given its id. The C library has no ioprio wrapper.
  constexpr int kWhoProcess = 1;
  constexpr int kBestEffortLevel7 = (2 << 13) | 7;
  const auto thread = static_cast<id_t>(syscall(SYS_gettid));
  (void)setpriority(PRIO_PROCESS, thread, 10);
  (void)syscall(SYS_ioprio_set, kWhoProcess, thread, kBestEffortLevel7);
}

#else

void name_this_thread(const std::string&) noexcept {}
void lower_this_threads_priority() noexcept {}

#endif

}  // namespace millrace
