// Names in a storage directory: what an object may be called, and the hidden names of the commit
// protocol.
//
//   epoch_3.pth                                  an object
//   .epoch_3.pth.<16 hex digits>.tmp             being written
//   .epoch_3.pth.<16 hex digits>.trash           being removed
//
// Only a name of exactly these shapes is ever swept; any other hidden file belongs to someone else.
#pragma once

#include <string>
#include <string_view>

namespace millrace {

// Throws StorageError(operation, name, EINVAL) unless `name` may name an object: 1 to 200 bytes, no
// slash, no NUL, no leading dot.
void check_object_name(std::string_view operation, std::string_view name);

bool is_hidden_name(std::string_view name);  // never an object

// Fresh on every call, so that a failed write is never continued under its old name.
std::string temp_name(std::string_view object);
std::string trash_name(std::string_view object);

// True for the two hidden shapes above.
bool is_leftover_name(std::string_view name);

}  // namespace millrace
