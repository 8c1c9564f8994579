// The threads of this process by their name. One that was joined is in the kernel's list for some
// time yet; it is exiting, and not counted.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::test {

// `stat` is /proc/<pid>/task/<tid>/stat: "tid (name) state" and numbers; the sixth of them is the
// kernel's flags. A line that is empty or short is that of a thread that is gone.
inline bool is_live(const std::string& stat, std::string_view name_prefix) {
  constexpr unsigned kExiting = 4;  // PF_EXITING, set before whoever joins is woken
  const auto name_begin = stat.find('('), name_end = stat.rfind(')');
  if (name_end == std::string::npos) return false;
  const std::string name = stat.substr(name_begin + 1, name_end - name_begin - 1);
  std::istringstream rest(stat.substr(name_end + 1));
  char state;
  long skipped;
  unsigned flags;
  rest >> state;
  for (int i = 0; i < 5; ++i) rest >> skipped;
  return rest >> flags && (flags & kExiting) == 0 && name.starts_with(name_prefix);
}

inline std::vector<pid_t> live_threads(std::string_view name_prefix = "") {
  std::vector<pid_t> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string stat;
    std::getline(std::ifstream(task.path() / "stat"), stat);
    if (is_live(stat, name_prefix)) found.push_back(std::stoi(task.path().filename().string()));
  }
  return found;
}

}  // namespace millrace::test
