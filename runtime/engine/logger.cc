#include "millrace/runtime/engine/logger.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
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
  void draw() {
    if (terminal_ && (!status_.empty() || drawn_)) {
      std::fprintf(stdout, "\r\033[K%s", status_.c_str());
      drawn_ = !status_.empty();
    }
    std::fflush(stdout);
  }

  const bool terminal_;
  bool drawn_ = false;
  std::string status_;
};

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
};

Logger::Logger(Options options) : impl_(std::make_unique<Impl>()) {
  impl_->logger.set_level(spdlog_level(options.level));
  if (options.console) {
    impl_->console = std::make_shared<ConsoleSink>();
    impl_->console->set_pattern("%m/%d %H:%M:%S - %n - %l - %v");
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
    sink->set_pattern("%Y/%m/%d %H:%M:%S - %n - %l - %v");
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
