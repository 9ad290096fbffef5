// SPDX-License-Identifier: Apache-2.0
#include "openai/servers.h"

#include <gtest/gtest.h>

#include <string>

namespace millstream {
namespace {

TEST(ServersTest, AHeadersSecretIsMaskedWithItsSchemeAndWithout) {
  ServerAccess access;
  access.AddSecret("Bearer  sk-canary");
  access.AddSecret("bAsIc dXNlcjpwYXNz+nd/cmQ=");  // user:pass, +, ...
  EXPECT_EQ(access.Redacted("of Bearer  sk-canary: no"), "of ***: no");
  EXPECT_EQ(access.Redacted("sk-canary, Bearer sk-canary"), "***, Bearer ***");
  EXPECT_EQ(access.Redacted("dXNlcjpwYXNz+nd/cmQ= of Basic"), "*** of Basic");
  EXPECT_EQ(
      access.Redacted("user:pass\xFAw\x7F"
                      "rd of user"),
      "user:*** of user"
  );
  access = {};
  access.AddSecret("Basic c2stY2FuYXJ5Og==");  // sk-canary:
  EXPECT_EQ(access.Redacted("sk-canary"), "***");
}

TEST(ServersTest, ASecretIsMaskedAsJsonEscapesIt) {
  ServerAccess access;
  access.AddSecret(R"(/a"b\c+)");
  for (const char* spelled :
       {R"(/a"b\c+)", R"(\/a\"b\\c+)", R"(\u002F\u0061\u0022\u0062\u005c\u0063\u002b)"}) {
    EXPECT_EQ(access.Redacted("\\ud" + std::string(spelled) + "d"), "\\ud***d") << spelled;
  }
  for (const char* other : {R"(/a"b\\)", R"(\u002)", R"(\u002+a"b\c+)", R"(/\a"b\c+)", "\\"}) {
    EXPECT_EQ(access.Redacted(other), other);
  }
}

TEST(ServersTest, AShortPartOfASecretMasksNothingByItself) {
  ServerAccess access;
  access.AddSecret("Token is x");
  access.AddSecret("Basic YTpi");  // a:b
  EXPECT_EQ(access.Redacted("six a:b, Token is x"), "six a:b, ***");
}

TEST(ServersTest, ASecretThatBeginsAsAnotherLeavesNothingOfIt) {
  ServerAccess access;
  for (const char* secret : {"key-1", "key-1-canary", "key"}) access.AddSecret(secret);
  EXPECT_EQ(access.Redacted("key-1-canary key-1 key"), "*** *** ***");
}

}  // namespace
}  // namespace millstream
