"""The accounts in Asterisk's files: who calls without a password, whose is weak, who is bounded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.host.accounts import Account, Accounts, read_accounts

STRONG = "f3Q9zLw27vTk"


@pytest.fixture(name="etc")
def _etc(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for configuration files; nothing read from it may show a password."""
    yield tmp_path
    assert STRONG not in repr(read_accounts(tmp_path, chan_sip=True, iax2=True, pjsip=True))


def read(etc: Path, **files: str) -> Accounts:
    """Write files (``sip="[general]..."``) and read their accounts, with every driver loaded."""
    for name, text in files.items():
        (etc / f"{name}.conf").write_text(text, "utf-8")
    return read_accounts(etc, chan_sip=True, iax2=True, pjsip=True)


def by_name(accounts: Accounts) -> dict[str, Account]:
    """Give the accounts by their names, which are all different here."""
    return {account.name: account for account in accounts.accounts}


def free(accounts: Accounts) -> list[str]:
    """Name those that need no password."""
    return [account.name for account in accounts.accounts if account.free]


def test_chan_sip_takes_guests_unless_told_otherwise(etc: Path) -> None:
    """Its defaults are to take guests, into ``default``, and to tell nobody which accounts there are."""
    assert read(etc) == Accounts()
    assert (read(etc, sip="").guests, read(etc, sip="").telling) == ("default", False)
    given = read(etc, sip="[general]\ncontext=public\nalwaysauthreject=no\ntlsclientmethod=TLSv1\n")
    assert (given.guests, given.telling, given.making) == ("public", True, False)
    assert given.outdated == ("tlsclientmethod in sip.conf [general]",)
    assert read(etc, sip="[general]\nallowguest=no\n").guests == ""
    assert read(etc, sip="[general]\nautocreatepeer=persist\n").making


def test_who_needs_no_password_in_chan_sip(etc: Path) -> None:
    """By the name that is given, or by registering; not who is known by the address, or is kept to some."""
    found = read(
        etc,
        sip=f"""
[general]
context = public
[t](!)
type = friend
host = dynamic
secret = {STRONG}
[phone](t)
call-limit = 2
[open](t)
insecure = port,invite
[friend]
type = friend
host = 203.0.113.9
[peer]
type = peer
host = dynamic
context = inside
[user]
type = user
[trunk]
type = peer
host = 203.0.113.5
insecure = port,invite
[kept]
type = friend
host = dynamic
deny = 0.0.0.0/0.0.0.0
permit = 10.0.0.0/255.0.0.0
[permitted]
type = friend
host = dynamic
permit = 10.0.0.0/255.0.0.0
[hashed](t)
md5secret = 0cc175b9c0f1b6a831c399e269772661
[nothing]
host = dynamic
""",
    )
    assert free(found) == ["open", "friend", "peer", "user", "permitted"]
    accounts = by_name(found)
    assert accounts["phone"] == Account("sip.conf", "phone", "public", registers=True, limited=True)
    assert (accounts["user"].context, accounts["peer"].context) == ("public", "inside")
    assert accounts["kept"].bounded
    assert accounts["hashed"].hashed


def test_weak_passwords_are_told_by_account(etc: Path) -> None:
    """In every file; what a trunk sends to others is not judged, nor what is kept as a hash."""
    found = read(
        etc,
        sip="[201]\ntype=friend\nhost=dynamic\nsecret=201201\n"
        "[trunk]\ntype=peer\nhost=203.0.113.5\nsecret=1234\n"
        "[h]\ntype=friend\nhost=dynamic\nmd5secret=1234\n",
        users="[general]\nhassip=yes\nsecret=1234\n[6001]\nfullname=A\n[6002]\nhassip=no\n"
        f"[6003]\nsecret={STRONG}\n",
        iax="[202]\ntype=friend\nhost=dynamic\nsecret=changeme\n[out]\ntype=peer\nhost=1.2.3.4\nsecret=x\n",
        pjsip="[203]\ntype=endpoint\nauth=a203\n[a203]\ntype=auth\nusername=boss\npassword=boss2026\n"
        "[204]\ntype=endpoint\nauth=gone\n"
        "[out]\ntype=endpoint\noutbound_auth=a\nidentify_by=ip\n[a]\ntype=auth\npassword=1\n"
        "[205]\ntype=endpoint\nauth=a205\n[a205]\ntype=auth\nauth_type=md5\nmd5_cred=1234\n"
        "[206]\ntype=endpoint\nauth=a206\n[a206]\ntype=auth\npassword=\n",
        pjsip_wizard="[207]\ntype=wizard\naccepts_auth=yes\naccepts_registrations=yes\n"
        "inbound_auth/username=207\ninbound_auth/password=207\n"
        "[w]\ntype=wizard\nsends_auth=yes\noutbound_auth/password=w\nendpoint/identify_by=ip\n",
    )
    assert [account.name for account in found.accounts if account.weak] == [
        *("201", "6001", "202", "203", "206", "207")
    ]
    assert [account.name for account in found.accounts if account.hashed] == ["h", "205"]
    assert free(found) == []


def test_who_needs_no_password_in_pjsip(etc: Path) -> None:
    """By the name in From, where endpoints may be found by it; ``anonymous`` is everybody."""
    text = f"""
[base](!)
type = endpoint
context = inside
[anonymous](base)
[anonymous@pbx.example](base)
[named](base)
[by-address](base)
identify_by = ip,header
[phone](base)
auth = phone
aors = phone
[phone]
type = auth
password = {STRONG}
[phone]
type = aor
max_contacts = 1
[kept](base)
acl = office
"""
    found = read(etc, pjsip=text)
    assert free(found) == ["anonymous", "anonymous@pbx.example", "named"]
    assert by_name(found)["phone"] == Account("pjsip.conf", "phone", "inside", registers=True)

    only_ip = "[g]\ntype = global\nendpoint_identifier_order = ip\n"
    assert free(read(etc, pjsip=text + only_ip)) == []
    nobody_else = "[g]\ntype = acl\ndeny = 0.0.0.0/0.0.0.0\n"
    assert free(read(etc, pjsip=text + nobody_else)) == []


def test_the_wizard_s_and_iax2_s_doors(etc: Path) -> None:
    """A wizard without auth is found by name too; IAX2's guest takes anybody, one with a key does not."""
    found = read(
        etc,
        pjsip_wizard="[a]\ntype=wizard\nremote_hosts=203.0.113.5\nendpoint/context=in\n"
        "[b]\ntype=wizard\nendpoint/acl=x\n[c]\ntype=wizard\nendpoint/identify_by=ip\n",
        iax="[guest]\ntype=user\ncontext=public\n[key]\ntype=user\nauth=rsa\ninkeys=k\n"
        "[kept]\ntype=user\ndeny=0.0.0.0/0.0.0.0\n[p]\ntype=peer\n",
    )
    assert free(found) == ["guest", "a"]
    assert [by_name(found)[name].context for name in ("guest", "a")] == ["public", "in"]


def test_broken_tls_and_databases_are_told(etc: Path) -> None:
    """A transport with a broken version; accounts that a database has; files that could not be read."""
    found = read(
        etc,
        pjsip="[tls]\ntype=transport\nmethod=tlsv1_1\n"
        "[good]\ntype=transport\nmethod=tlsv1_2\n#include gone\n",
        extconfig="[settings]\nps_auths => odbc,asterisk\nvoicemail => odbc,asterisk\n",
    )
    assert found.outdated == ("method in pjsip.conf [tls]",)
    assert found.stored == ("ps_auths",)
    assert found.unread == ("pjsip.conf",)


def test_only_drivers_that_are_loaded_count(etc: Path) -> None:
    """A file that a driver of before has left says nothing of what is open now."""
    read(etc, sip="[u]\ntype=user\n", iax="[g]\ntype=user\n", pjsip="[e]\ntype=endpoint\n", users="")

    assert read_accounts(etc, chan_sip=False, iax2=False, pjsip=False) == Accounts()
    assert free(read_accounts(etc, chan_sip=False, iax2=False, pjsip=True)) == ["e"]
