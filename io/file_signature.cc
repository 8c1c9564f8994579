#include "millrace/io/file_signature.h"

#include <algorithm>
#include <array>

#include "millrace/io/utf8.h"

namespace millrace {
namespace {

struct Signature {
  std::size_t offset;
  std::string_view bytes, name;
};

using namespace std::string_view_literals;
constexpr std::array kSignatures{
    Signature{0, "\x89PNG\r\n\x1a\n"sv, "a PNG image"},
    Signature{0, "\xff\xd8\xff"sv, "a JPEG image"},
    Signature{0, "GIF8"sv, "a GIF image"},
    Signature{0, "%PDF-"sv, "a PDF document"},
    Signature{0, "\x1f\x8b"sv, "gzip-compressed data"},
    Signature{0, "BZh"sv, "bzip2-compressed data"},
    Signature{0,
              "\xfd"
              "7zXZ\0"sv,
              "xz-compressed data"},
    Signature{0, "\x28\xb5\x2f\xfd"sv, "zstd-compressed data"},
    Signature{0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive"},
    Signature{0, "Rar!"sv, "a RAR archive"},
    Signature{257, "ustar"sv,
              "a tar archive (the format of torch before 0.1.11, or none of torch's)"},
    Signature{0,
              "\x7f"
              "ELF"sv,
              "an ELF program or library"},
    Signature{0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file (Keras, perhaps)"},
    Signature{0, "\x93NUMPY"sv, "a NumPy .npy array"},
    Signature{0, "GGUF"sv, "a GGUF model"},
    Signature{0, "SQLite format 3"sv, "an SQLite database"},
    Signature{0, "RIFF"sv, "a RIFF media file"},
    Signature{8, "{\""sv, "a safetensors file"},
    Signature{0, "version https://git-lfs"sv, "a Git LFS pointer, not the file it stands for"},
};

bool is_printable_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 || byte == '\n' || byte == '\r' || byte == '\t' || byte == '\f';
  });
}

// The cut at the end of `head` may have split a character.
bool is_utf8_head(std::string_view text) {
  for (std::size_t cut = 0; cut < 4 && cut <= text.size(); ++cut) {
    if (is_utf8(text.substr(0, text.size() - cut))) return true;
  }
  return false;
}

std::string text_kind(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \r\n\t");
  if (start == std::string_view::npos) return "a blank text file";
  text.remove_prefix(start);
  std::string lower(text.substr(0, 16));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (lower.starts_with("<!doctype html") || lower.starts_with("<html")) {
    return "a web page (a download that failed, perhaps)";
  }
  if (lower.starts_with("<?xml")) return "an XML file";
  if (lower.front() == '{' || lower.front() == '[') return "a JSON file";
  return "a text file";
}

}  // namespace

std::string looks_like(std::span<const std::byte> head) {
  if (head.empty()) return "an empty file";
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  for (const Signature& signature : kSignatures) {
    if (text.size() > signature.offset &&
        text.substr(signature.offset).starts_with(signature.bytes)) {
      return std::string(signature.name);
    }
  }
  if (std::all_of(text.begin(), text.end(), [](char c) { return c == 0; })) {
    return "a file of zeros (one whose data never reached the disk, perhaps)";
  }
  if (is_printable_text(text) && is_utf8_head(text)) return text_kind(text);
  return "an unknown format";
}

std::string zip_looks_like(const std::vector<std::string_view>& names) {
  const auto any = [&](auto matches) { return std::any_of(names.begin(), names.end(), matches); };
  const auto has = [&](std::string_view name) {
    return any([name](std::string_view each) { return each == name; });
  };
  if (has("[Content_Types].xml")) return "an Office document";
  if (has("AndroidManifest.xml")) return "an Android package";
  if (has("META-INF/MANIFEST.MF")) return "a Java archive";
  if (has("mimetype")) return "an OpenDocument or EPUB file";
  if (any([](std::string_view each) { return each.ends_with(".npy"); })) {
    return "a NumPy .npz archive";
  }
  if (any([](std::string_view each) { return each.ends_with(".dist-info/METADATA"); })) {
    return "a Python wheel";
  }
  return "a zip archive";
}

}  // namespace millrace
