// SPDX-License-Identifier: Apache-2.0
#include "pipeline/command_words.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>

namespace millstream {
namespace {

// What a shell makes of it, by printf, which ends each word with a newline here.
std::string ByShell(const std::string& text) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      popen(("printf '%s\\n' " + text).c_str(), "r"), pclose
  );
  std::string out;
  char bytes[256];
  while (const std::size_t count = fread(bytes, 1, sizeof bytes, pipe.get())) {
    out.append(bytes, count);
  }
  return out;
}

TEST(CommandWordsTest, AreThoseThatAShellFinds) {
  for (const std::string text : {
           "llama-server -m model.gguf --port {port}",
           "  a\tb   'c d'  ",
           R"(a'b c'd"e f"g\ h)",
           R"(x '' "" y)",
           R"(x "a \"b\" \\ \$c \` \n" 'it'\''s' \\)",
           R"(serve --template-kwargs '{"enable_thinking": false}')",
           R"(x '$HOME | a; b' "a & b > c" \$HOME \|)",
           "x a~b a=b x",
       }) {
    const auto words = CommandWords(text);
    ASSERT_TRUE(words.ok()) << text << words.status();
    std::string lines;
    for (const std::string& word : *words) lines += word + "\n";
    EXPECT_EQ(lines, ByShell(text)) << text;
  }
}

TEST(CommandWordsTest, WhatNeedsAShellOrIsNotWholeIsRefused) {
  for (const std::string text : {
           "serve -m $HOME/x",
           "serve \"$HOME\"",
           "serve `pwd`",
           "cd x && serve",
           "serve > log",
           "serve; other",
           "serve | tee",
           "~/serve",
           "(serve)",
           "serve 'x",
           "serve \"x",
           "serve \\",
           "",
           "  ",
           "'' x",
           "CUDA_VISIBLE_DEVICES=0 serve",
       }) {
    EXPECT_TRUE(CommandWords(text).status().IsInvalid()) << text;
  }
}

}  // namespace
}  // namespace millstream
