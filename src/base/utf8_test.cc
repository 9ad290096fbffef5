// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include <gtest/gtest.h>

namespace millstream {
namespace {

TEST(Utf8Test, TellsTextFromOtherBytes) {
  for (const char* text : {"", "plain", "h\xc3\xa9", "\xf0\x9f\x98\x80", "\xef\xbf\xbf"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
  }
  // A lone byte, an overlong form, half of a surrogate pair, beyond the last code point, cut off.
  for (const char* bytes :
       {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "ok \xe2\x82"}) {
    EXPECT_FALSE(IsValidUtf8(bytes)) << bytes;
  }
}

}  // namespace
}  // namespace millstream
