// The run's log: people read it, so lines are plain text. Console and file, in the reference's
// formats.
//
// A terminal can carry one status line (a progress bar) below the log; it is redrawn after each
// line and never written to a file or a pipe. Any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace millrace {

enum class LogLevel : int { kDebug, kInfo, kWarning, kError, kOff };

LogLevel parse_log_level(std::string_view name);  // throws ConfigError with the nearest name

class Logger {
 public:
  struct Options {
    LogLevel level = LogLevel::kInfo;
    bool console = true;                                   // standard output
    std::filesystem::path file;                            // empty: no file; appended to
    std::function<void(LogLevel, std::string_view)> sink;  // for hosts and tests: every line
  };

  explicit Logger(Options options);
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  bool enabled(LogLevel level) const noexcept;
  void log(LogLevel level, std::string_view text);
  void info(std::string_view text) { log(LogLevel::kInfo, text); }
  void warn(std::string_view text) { log(LogLevel::kWarning, text); }
  void error(std::string_view text) { log(LogLevel::kError, text); }
  // Also writes to `file` from now on, creating its folder. Throws StorageError.
  void add_file(const std::filesystem::path& file);
  void flush();

  // True when the console is a terminal, the only place a status line is drawn.
  bool has_terminal() const noexcept;
  void set_status(std::string_view text);  // empty removes it

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
