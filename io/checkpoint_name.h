// What the name of an object says about it. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace millrace {

// epoch_3.pth, best_acc_epoch_2.pth, epoch_3-0a1b2c3d.pth
bool is_checkpoint_name(std::string_view name);

// `<stem>-<8 hex digits>.pth`: reduced for others, and nothing to resume from.
bool is_published_name(std::string_view name);

// The published name of a file with that SHA-256 (hex, at least 8 digits): epoch_3.pth becomes
// epoch_3-0a1b2c3d.pth. As the reference does it, what stands behind the last dot is replaced.
std::string published_name(std::string_view name, std::string_view sha256);
// The part of it before the digits: epoch_3.
std::string_view name_stem(std::string_view name);

}  // namespace millrace
