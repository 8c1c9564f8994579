#include "millrace/runtime/engine/logger.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <mutex>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

// Standard output with at most one status line at the bottom of a terminal.
class ConsoleSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  ConsoleSink() : terminal_(isatty(STDOUT_FILENO) == 1) {}
  bool terminal() const noexcept { return terminal_; }

  void set_status(std::string_view text) {
    if (!terminal_) return;
    const std::scoped_lock lock(mutex_);
    status_ = text;
    draw();
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (!status_.empty()) std::fputs("\r\033[K", stdout);
    std::fwrite(line.data(), 1, line.size(), stdout);
    draw();
  }
  void flush_() override { std::fflush(stdout); }

 private:
  // Cut to the terminal: a wrapped line could not be erased again.
  std::string fitting_status() const {
    winsize size{};
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? status_.substr(0, size.ws_col - 1u) : status_;
  }

  void draw() {
    if (terminal_ && (!status_.empty() || drawn_)) {
      std::fprintf(stdout, "\r\033[K%s", fitting_status().c_str());
      drawn_ = !status_.empty();
    }
    std::fflush(stdout);
  }

  const bool terminal_;
  bool drawn_ = false;
  std::string status_;
};

// The level as the reference prints it: INFO, WARNING, ERROR.
class UpperCaseLevel final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    for (const char c : spdlog::level::to_string_view(message.level)) {
      out.push_back(c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<UpperCaseLevel>();
  }
};

std::unique_ptr<spdlog::formatter> line_format(const std::string& time) {
  auto format = std::make_unique<spdlog::pattern_formatter>();
  format->add_flag<UpperCaseLevel>('*').set_pattern(time + " - %n - %* - %v");
  return format;
}

class CallbackSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit CallbackSink(std::function<void(LogLevel, std::string_view)> sink)
      : sink_(std::move(sink)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const LogLevel level = message.level >= spdlog::level::err    ? LogLevel::kError
                           : message.level >= spdlog::level::warn ? LogLevel::kWarning
                           : message.level >= spdlog::level::info ? LogLevel::kInfo
                                                                  : LogLevel::kDebug;
    sink_(level, {message.payload.data(), message.payload.size()});
  }
  void flush_() override {}

 private:
  std::function<void(LogLevel, std::string_view)> sink_;
};

}  // namespace

LogLevel parse_log_level(std::string_view name) {
  const std::pair<const char*, LogLevel> levels[] = {{"DEBUG", LogLevel::kDebug},
                                                     {"INFO", LogLevel::kInfo},
                                                     {"WARNING", LogLevel::kWarning},
                                                     {"ERROR", LogLevel::kError},
                                                     {"OFF", LogLevel::kOff}};
  for (const auto& [text, level] : levels) {
    if (name == text) return level;
  }
  throw ConfigError("log_level", "unknown level '" + std::string(name) + "'",
                    nearest_name(name, {"DEBUG", "INFO", "WARNING", "ERROR", "OFF"}));
}

struct Logger::Impl {
  spdlog::logger logger{"millrace"};
  std::shared_ptr<ConsoleSink> console;
  std::atomic<bool> told = false;  // that the log itself fails; once is enough
};

Logger::Logger(Options options) : impl_(std::make_unique<Impl>()) {
  impl_->logger.set_level(spdlog_level(options.level));
  impl_->logger.set_error_handler([told = &impl_->told](const std::string& problem) {
    if (!told->exchange(true))
      std::fprintf(stderr, "warning: the log has gaps: %s\n", problem.c_str());
  });
  if (options.console) {
    impl_->console = std::make_shared<ConsoleSink>();
    impl_->console->set_formatter(line_format("%m/%d %H:%M:%S"));
    impl_->logger.sinks().push_back(impl_->console);
  }
  if (options.sink) {
    impl_->logger.sinks().push_back(std::make_shared<CallbackSink>(std::move(options.sink)));
  }
  if (!options.file.empty()) add_file(options.file);
}

Logger::~Logger() = default;

bool Logger::enabled(LogLevel level) const noexcept {
  return impl_->logger.should_log(spdlog_level(level));
}

void Logger::log(LogLevel level, std::string_view text) {
  impl_->logger.log(spdlog_level(level), text);
}

void Logger::add_file(const std::filesystem::path& file) {
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
    sink->set_formatter(line_format("%Y/%m/%d %H:%M:%S"));
    impl_->logger.sinks().push_back(std::move(sink));
  } catch (const spdlog::spdlog_ex& error) {
    throw StorageError("open log", file.string(), errno, error.what());
  }
}

void Logger::flush() { impl_->logger.flush(); }

bool Logger::has_terminal() const noexcept { return impl_->console && impl_->console->terminal(); }

void Logger::set_status(std::string_view text) {
  if (impl_->console) impl_->console->set_status(text);
}

}  // namespace millrace
