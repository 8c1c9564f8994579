#include "millrace/io/sha256.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/images.h"

namespace millrace::test {
namespace {

std::string of(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

// The vectors of FIPS 180-4.
TEST(Sha256, KnownVectors) {
  EXPECT_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(of(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesAreOneText) {
  const auto bytes = pattern(10'000, 1);
  for (const std::size_t piece : {1, 63, 64, 65, 4'096}) {
    Sha256 sha;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      sha.add(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
    }
    EXPECT_EQ(sha.hex(), sha256_hex(bytes)) << piece;
  }
}

}  // namespace
}  // namespace millrace::test
