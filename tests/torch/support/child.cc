#include "tests/torch/support/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

extern char** environ;

namespace millrace::test {

Child::Child(std::vector<std::string> command) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category());
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const int error =
      ::posix_spawn(&process_, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  output_ = ends[0];
  if (error != 0) {
    ::close(output_);
    throw std::system_error(error, std::generic_category(), command[0]);
  }
}

Child::~Child() {
  kill();
  wait();
  ::close(output_);
}

std::optional<std::string> Child::read_line() {
  for (;;) {
    const auto end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    char block[4096];
    const ssize_t count = ::read(output_, block, sizeof block);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return std::nullopt;
    buffer_.append(block, static_cast<std::size_t>(count));
  }
}

void Child::kill() {
  if (!status_) ::kill(process_, SIGKILL);
}

int Child::wait() {
  while (!status_) {
    int status = 0;
    if (::waitpid(process_, &status, 0) == process_) status_ = status;
  }
  return *status_;
}

bool ChildResult::was_killed() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

std::vector<std::string> ChildResult::starting_with(const std::string& prefix) const {
  std::vector<std::string> found;
  for (const std::string& line : lines) {
    if (line.starts_with(prefix)) found.push_back(line);
  }
  return found;
}

ChildResult run_child(std::vector<std::string> command) {
  Child child(std::move(command));
  ChildResult result;
  while (auto line = child.read_line()) result.lines.push_back(*line);
  result.status = child.wait();
  return result;
}

std::vector<std::string> trainer(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), MILLRACE_TRAINER);
  return arguments;
}

}  // namespace millrace::test
