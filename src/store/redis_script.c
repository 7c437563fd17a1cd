/* SPDX-License-Identifier: Apache-2.0 */
/* The scripts, each for one key, and their names: a server knows a script by the SHA-1 of its text. They run on Redis 6
 * and later and on Valkey. Strings with bytes that are no text are compared for equality only: the order of strings in
 * Lua is that of the server's locale. */
#include "store/redis_script.h"
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* The record's token, when there is an owned record at all; else what follows. */
#define OWNED(otherwise)                                                      \
    "local p=redis.call('GETRANGE',KEYS[1],0,7) local m=p:byte(1) " otherwise \
    "if #p<8 or (m~=246 and m~=247) then return 0 end "                       \
    "if p:sub(2)~=ARGV[1] and struct.unpack('>I7',p,2)>struct.unpack('>I7',ARGV[1]) then return 0 end "

static const char *const texts[SCRIPTS] = {
    [SCRIPT_CAS] = "if redis.call('GETRANGE',KEYS[1],0,7)~=ARGV[1] then return 0 end "
                   "redis.call('SET',KEYS[1],ARGV[2],unpack(ARGV,3)) return 1",
    [SCRIPT_CAS_BYTES] = "local v=redis.call('GET',KEYS[1]) "
                         "if not v or v:byte(1)~=245 or v:sub(9)~=ARGV[1] then return 0 end "
                         "redis.call('SET',KEYS[1],ARGV[2],unpack(ARGV,3)) return 1",
    /* The count goes back as a string: Lua's numbers are exact to 53 bits only. */
    [SCRIPT_INCR] = "redis.call('INCRBY',KEYS[1],ARGV[1]) redis.call('PEXPIRE',KEYS[1],ARGV[2]) "
                    "return redis.call('GET',KEYS[1])",
    [SCRIPT_FOREVER] = "redis.call('PERSIST',KEYS[1]) return redis.call('EXISTS',KEYS[1])",
    /* Microseconds as tokens: exact in Lua's numbers for longer than two centuries, and they grow also where the record
     * was gone meanwhile. */
    [SCRIPT_OWN] =
        "local v=redis.call('GET',KEYS[1]) or '' local m=v:byte(1) "
        "if m and (#v<8 or #v>65544 or m<245 or m>247) then return redis.error_reply('ERR not a record') end "
        "local t=redis.call('TIME') local n=t[1]*1000000+t[2] "
        "if m==246 or m==247 then local o=struct.unpack('>I7',v,2) if o>=n then n=o+1 end end "
        "v=((not m or m==247) and '\\247' or '\\246')..struct.pack('>I7',n)..v:sub(9) "
        "redis.call('SET',KEYS[1],v,unpack(ARGV)) return v",
    [SCRIPT_PUT_OWNED] = OWNED("") "redis.call('SET',KEYS[1],ARGV[2],unpack(ARGV,3)) return 1",
    [SCRIPT_DELETE_OWNED] = OWNED("if not m then return -1 end ") "redis.call('DEL',KEYS[1]) return 1",
    [SCRIPT_CHECK_OWNED] = OWNED("") "return 1",
    [SCRIPT_POOL_TAKE] =
        "local k=KEYS[1] local t=redis.call('TIME') local n=t[1]*1000000+t[2] local ms=math.floor(n/1000) "
        "local size=tonumber(ARGV[1]) local v=redis.call('ZCARD',k) "
        "if v>=size then local r=redis.call('ZRANGE',k,0,0,'WITHSCORES') "
        "if not r[1] or tonumber(r[2])>ms then return false end "
        "local w,o=r[1]:match('^(%d+):(%d+)$') v=tonumber(w) o=tonumber(o) "
        "if v>=size then return redis.error_reply('ERR pool was larger') end "
        "if o>=n then n=o+1 end redis.call('ZREM',k,r[1]) end "
        "local e=string.format('%d:%.0f',v,n) redis.call('ZADD',k,ms+ARGV[2],e) return e",
    [SCRIPT_POOL_SET] = "local k=KEYS[1] if not redis.call('ZSCORE',k,ARGV[1]) then return 0 end "
                        "local t=redis.call('TIME') "
                        "redis.call('ZADD',k,math.floor(t[1]*1000+t[2]/1000)+ARGV[2],ARGV[1]) return 1",
};
static struct nst_slice slices[SCRIPTS];
static char names[SCRIPTS][2 * SHA_DIGEST_LENGTH + 1];

static void compute(void)
{
    for (int i = 1; i < SCRIPTS; i++) {
        unsigned char digest[SHA_DIGEST_LENGTH];
        slices[i] = (struct nst_slice){ texts[i], strlen(texts[i]) };
        SHA1((const unsigned char *)texts[i], slices[i].len, digest);
        for (int j = 0; j < SHA_DIGEST_LENGTH; j++)
            snprintf(names[i] + 2 * j, 3, "%02x", digest[j]);
    }
}

void redis_scripts(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, compute);
}

const char *redis_script_name(enum redis_script script)
{
    return names[script];
}

struct nst_slice redis_script_text(enum redis_script script)
{
    return slices[script];
}
