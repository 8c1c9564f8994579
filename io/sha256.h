// SHA-256 of bytes that come in pieces, by OpenSSL. One thread at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace millrace {

class Sha256 {
 public:
  Sha256();  // throws Error when OpenSSL has no SHA-256
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void add(std::span<const std::byte> bytes);
  // 64 lower-case hex digits, as sha256sum prints them. Once, after the last byte.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace millrace
