// SPDX-License-Identifier: Apache-2.0
#include "engine/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/scheduler.h"

namespace millstream {
namespace {

using kernels::kPageTokens;
using Tokens = std::vector<std::int32_t>;
using Pages = std::vector<std::int32_t>;

constexpr std::int32_t kNoPage = PagePool::kNoPage;

/// Pages of 16 equal tokens each.
Tokens Repeated(const std::vector<std::int32_t>& tokens) {
  Tokens all;
  for (const std::int32_t token : tokens) all.insert(all.end(), kPageTokens, token);
  return all;
}

/// As an engine does: uses what is known, announces the rest, computes it all.
Pages Compute(PagePool& pool, const Tokens& tokens) {
  Pages pages = pool.Find(tokens).pages;
  for (const std::int32_t page : pages) pool.Use(page);
  const auto known = pages.size();
  for (auto at = known * kPageTokens; at < tokens.size(); at += kPageTokens) {
    const std::int32_t before = pages.empty() ? kNoPage : pages.back();
    pages.push_back(pool.Take());
    pool.Announce(before, std::span(tokens).subspan(at, kPageTokens), pages.back());
  }
  for (auto p = known; p < pages.size(); ++p) pool.SetReady(pages[p]);
  return pages;
}

void Release(PagePool& pool, const Pages& pages) {
  std::for_each(pages.rbegin(), pages.rend(), [&](std::int32_t page) { pool.Release(page); });
}

TEST(PagePoolTest, APrefixIsFoundAsFarAsItIsKnown) {
  PagePool pool(8);
  const Pages first = Compute(pool, Repeated({1, 2, 3}));
  EXPECT_EQ(pool.num_free(), 5);
  EXPECT_EQ(pool.Find(Repeated({1, 2, 3})).pages, first);
  EXPECT_EQ(pool.Find(Repeated({1, 2, 4})).pages, Pages(first.begin(), first.begin() + 2));
  EXPECT_EQ(pool.Find(Repeated({2, 3})).pages, Pages());  // known after a 1 alone
  Tokens part = Repeated({1, 2});
  part.pop_back();
  EXPECT_EQ(pool.Find(part).pages, Pages({first[0]}));
}

TEST(PagePoolTest, WhatSomebodyIsComputingIsComing) {
  PagePool pool(8);
  const Tokens tokens = Repeated({1, 2});
  const std::int32_t page = pool.Take(), other = pool.Take();
  pool.Announce(kNoPage, std::span(tokens).first(kPageTokens), page);
  pool.Announce(kNoPage, std::span(tokens).first(kPageTokens), other);  // too late
  EXPECT_TRUE(pool.Find(tokens).is_next_coming);
  EXPECT_TRUE(pool.Find(tokens).pages.empty());
  pool.SetReady(other);
  EXPECT_TRUE(pool.Find(tokens).pages.empty());
  pool.SetReady(page);
  EXPECT_FALSE(pool.Find(tokens).is_next_coming);
  EXPECT_EQ(pool.Find(tokens).pages, Pages({page}));
}

TEST(PagePoolTest, NothingIsKnownAfterAPageThatIsNot) {
  PagePool pool(3);
  const Tokens tokens = Repeated({1, 2});
  Release(pool, Compute(pool, Repeated({1})));
  const std::int32_t unknown = pool.Take(), after = pool.Take();
  pool.Announce(kNoPage, Repeated({1}), unknown);  // too late
  pool.Announce(unknown, Repeated({2}), after);
  pool.SetReady(after);
  Release(pool, {unknown, after});
  ASSERT_EQ(pool.Take(), unknown);
  pool.Announce(kNoPage, Repeated({3}), unknown);
  pool.SetReady(unknown);
  EXPECT_EQ(pool.Find(Repeated({3, 2})).pages, Pages({unknown}));
}

TEST(PagePoolTest, WhatWasNotComputedToItsEndIsForgotten) {
  PagePool pool(2);
  const Tokens tokens = Repeated({1});
  const std::int32_t page = pool.Take();
  pool.Announce(kNoPage, tokens, page);
  pool.Release(page);
  EXPECT_FALSE(pool.Find(tokens).is_next_coming);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(PagePoolTest, PagesInUseStayAndThoseNotUsedForLongestGoFirst) {
  PagePool pool(4);
  Release(pool, Compute(pool, Repeated({1, 2})));
  const Pages used = Compute(pool, Repeated({3}));
  Release(pool, Compute(pool, Repeated({1})));  // used once more
  EXPECT_EQ(pool.num_free(), 3);
  pool.Take();  // the one that was never used
  pool.Take();
  EXPECT_EQ(pool.Find(Repeated({1, 2})).pages.size(), 1U);
  pool.Take();
  EXPECT_TRUE(pool.Find(Repeated({1})).pages.empty());
  EXPECT_EQ(pool.Find(Repeated({3})).pages, used);
  EXPECT_EQ(pool.num_free(), 0);
}

// What each page holds is kept beside the pool; whatever is found must hold what was asked for.
TEST(PagePoolTest, WhateverComesAndGoesWhatIsFoundIsWhatWasAskedFor) {
  std::mt19937 random(7);
  const auto pick = [&](int below) {
    return static_cast<int>(random() % static_cast<unsigned>(below));
  };
  constexpr int kPages = 24;
  PagePool pool(kPages);
  std::map<std::int32_t, Tokens> contents;  // with all before it
  std::vector<Pages> sequences;
  std::size_t found = 0;
  for (int turn = 0; turn < 20'000; ++turn) {
    if (pick(2) == 0 && !sequences.empty()) {
      std::swap(
          sequences[static_cast<std::size_t>(pick(static_cast<int>(sequences.size())))],
          sequences.back()
      );
      Release(pool, sequences.back());
      sequences.pop_back();
    } else {
      std::vector<std::int32_t> tokens;
      for (int i = 1 + pick(5); i > 0; --i) tokens.push_back(pick(3));
      const Tokens all = Repeated(tokens);
      const Pages known = pool.Find(all).pages;
      for (std::size_t p = 0; p < known.size(); ++p) {
        const Tokens head(
            all.begin(), all.begin() + static_cast<std::ptrdiff_t>(p + 1) * kPageTokens
        );
        ASSERT_EQ(contents.at(known[p]), head) << turn;
      }
      if (pool.num_free() < 5) continue;
      found += known.size();
      sequences.push_back(Compute(pool, all));
      for (std::size_t p = known.size(); p < tokens.size(); ++p) {
        contents[sequences.back()[p]] =
            Tokens(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(p + 1) * kPageTokens);
      }
    }
    std::map<std::int32_t, int> in_use;
    for (const Pages& pages : sequences) {
      for (const std::int32_t page : pages) ++in_use[page];
    }
    ASSERT_EQ(static_cast<std::size_t>(pool.num_free()) + in_use.size(), kPages);
  }
  EXPECT_GT(found, 1000U);
}

}  // namespace
}  // namespace millstream
