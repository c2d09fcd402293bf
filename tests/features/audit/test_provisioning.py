"""Folders with the settings of phones: ``check --hardening`` reports those that anybody may read."""

from pathlib import Path

import pytest
from tests.support.console import ScriptedConsole

from ringfence.features.audit.hardening import hardening_findings
from ringfence.features.audit.provisioning import provisioning_findings
from ringfence.findings import Finding
from ringfence.host.asterisk_conf import AsteriskFiles

PHONES = ("001565abcdef.cfg", "cfg000B82AAAAAA.xml", "SEP0011AABBCCDD.cnf.xml", "0004f2aabbcc-phone.cfg")
OTHERS = ("index.html", "000000000000000.cfg", "logo.png", "firmware-1.2.rom", "y000000000028.cfg.bak")
FOLDER = "/tftpboot"

# As FreePBX's module sysadmin writes it for HTTP provisioning.
VHOST = """\
Listen 84
<VirtualHost *:84>
  DocumentRoot {folder}
  <Directory "{folder}">
    Options -Indexes
    {rule}
  </Directory>
</VirtualHost>
"""
DEBIAN = """\
<Directory />
\tOptions FollowSymLinks
\tAllowOverride None
\tRequire all denied
</Directory>
<Directory /var/www/>
\tRequire all granted
</Directory>
<FilesMatch "^\\.ht">
\tRequire all denied
</FilesMatch>
"""
"""The parts of Debian's apache2.conf that decide who may read."""


def found(root: Path, folder: str = FOLDER, **files: str) -> list[Finding]:
    """Return the findings on a host with phones' files in ``folder``, and these files of web servers."""
    phones = root / folder.removeprefix("/")
    phones.mkdir(parents=True, exist_ok=True)
    for name in (*PHONES, *OTHERS):
        (phones / name).touch()
    for path, text in files.items():
        file = root / "etc" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return list(provisioning_findings(root))


def apache(root: Path, text: str, folder: str = FOLDER) -> list[Finding]:
    """Return the findings with this text as a site of Apache on Debian."""
    return found(root, folder, **{"apache2/apache2.conf": DEBIAN, "apache2/sites-enabled/phones.conf": text})


def nginx(root: Path, text: str, folder: str = FOLDER) -> list[Finding]:
    """Return the findings with this text as a site of nginx."""
    return found(root, folder, **{"nginx/sites-enabled/phones": text})


def test_a_host_without_web_server_has_no_line(tmp_path: Path) -> None:
    """Without a web server's files, no folder is served."""
    assert found(tmp_path) == []


def test_an_open_folder_of_apache_is_reported(tmp_path: Path) -> None:
    """The line names the folder, the file of Apache, the number of files, and the fix."""
    [line] = apache(tmp_path, VHOST.format(folder=FOLDER, rule="Require all granted"))

    assert (line.right, line.what) == (False, "hardening: provisioning")
    assert line.detail.startswith(
        "Apache serves /tftpboot without a password (/etc/apache2/sites-enabled/phones.conf), with 4 files "
        "of phones, such as 0004f2aabbcc-phone.cfg: "
    )
    assert "Require valid-user" in line.detail


@pytest.mark.parametrize(
    "text",
    [
        VHOST.format(folder=FOLDER, rule="AuthType Basic\n AuthName x\n Require valid-user"),
        VHOST.format(folder=FOLDER, rule="Require ip 192.0.2.0/24"),
        VHOST.format(
            folder=FOLDER, rule="<RequireAll>\n Require all granted\n Require ip 192.0.2.0/24\n</RequireAll>"
        ),
        VHOST.format(folder=FOLDER, rule="Order deny,allow\n Deny from all\n Allow from 192.0.2.0/24"),
        VHOST.format(folder=FOLDER, rule="Require all denied"),
        VHOST.format(folder=FOLDER, rule="Options None"),  # <Directory /> denies
        VHOST.format(folder=FOLDER, rule="Require all granted").replace("*:84", "127.0.0.1:84"),
        VHOST.format(folder=FOLDER, rule="Require all granted")
        + "<Location />\nRequire host example.org\n</Location>",
        VHOST.format(folder="${ROOT}/tftpboot", rule="Require all granted"),
        "# DocumentRoot /tftpboot\n",
        "<Directory\nDocumentRoot\n</\n>\nAlias /x\n\\\n",
    ],
)
def test_a_protected_folder_of_apache_is_fine(tmp_path: Path, text: str) -> None:
    """A password, an address, a file that denies all, and a server of this host alone protect a folder."""
    assert apache(tmp_path, text) == []


def test_an_alias_and_a_folder_of_a_site_are_reported(tmp_path: Path) -> None:
    """A folder that an alias serves is looked into, and one with a usual name in the root of a site."""
    opened = "<Directory /srv/prov>\n Require all granted\n</Directory>\n"
    [line] = apache(tmp_path, 'Alias "/prov/" "/srv/prov/"\n' + opened, "/srv/prov")
    assert "Apache serves /srv/prov without" in line.detail
    assert (
        apache(tmp_path, "Alias /prov /srv/prov\n<Location /prov>\nAuthType Digest\n</Location>\n" + opened)
        == []
    )

    [line] = apache(tmp_path, "DocumentRoot /var/www/html\n", "/var/www/html/provisioning")
    assert "Apache serves /var/www/html/provisioning without" in line.detail
    closed = "<Directory /var/www/html/provisioning>\nRequire ip 192.0.2.0/24\n</Directory>\n"
    assert apache(tmp_path, "DocumentRoot /var/www/html\n" + closed, "/var/www/html/provisioning") == []
    (tmp_path / "var/www/html/provisioning/.htaccess").write_text("AuthType Basic\n", "utf-8")
    assert apache(tmp_path, "DocumentRoot /var/www/html\n", "/var/www/html/provisioning") == []


def test_what_apache_protects_nginx_may_serve(tmp_path: Path) -> None:
    """Only Apache reads .htaccess, so the same folder is open by nginx."""
    site = VHOST.format(folder=FOLDER, rule="Require all granted")
    assert len(apache(tmp_path, site)) == 1
    (tmp_path / "tftpboot/.htaccess").write_text("AuthType Basic\n", "utf-8")
    [line] = nginx(tmp_path, "server { listen 80; root /tftpboot; }")
    assert "nginx serves /tftpboot without" in line.detail


@pytest.mark.parametrize(
    "text",
    [
        "server { listen 80; root /tftpboot; }",
        "server { listen [::]:80; listen 127.0.0.1:81; root '/tftpboot'; location ~ /\\.ht { deny all; } }",
        "http { auth_basic on; server { location /prov/ { auth_basic off; alias /tftpboot/; # open\n } } }",
        "server { root /var/www; auth_basic off; location ^~ /tftpboot { root /; try_files $uri =404; } }",
    ],
)
def test_an_open_folder_of_nginx_is_reported(tmp_path: Path, text: str) -> None:
    """A server or location without a password is reported, wherever the directives stand."""
    [line] = nginx(tmp_path, text)
    assert line.detail.startswith(
        "nginx serves /tftpboot without a password (/etc/nginx/sites-enabled/phones), with "
    )
    assert "auth_basic" in line.detail


@pytest.mark.parametrize(
    "text",
    [
        'server { root /tftpboot; auth_basic "phones; only"; auth_basic_user_file x; }',
        "http { auth_basic x; server { root /tftpboot; } }",
        "server { location / { root /tftpboot; allow 192.0.2.0/24; deny all; } }",
        "server { location / { auth_request /login; root /tftpboot; } }",
        "server { location /prov/ { alias /tftpboot; } }",
        "server { location /prov { internal; alias /tftpboot; } }",
        "server { listen 127.0.0.1:80; root /tftpboot; }",
        "server { root /tftpboot; return 301 https://$host$request_uri; }",
        "server { root /tftpboot; location / { proxy_pass http://127.0.0.1:81; } }",
        "server { root /tftpboot; location ~* cfg$ { auth_basic x; } }",
        "server { root $folder/tftpboot; }",
        "server { location /other { root /tftpboot; } }",
        "server { location ~ ^/.*cfg { root /tftpboot; } }",
        "# server { root /tftpboot; }",
        "http { deny all; server { auth_basic off; root /tftpboot; } }",
        "server { " * 999 + "root /tftpboot;",
        "}}} ; root /tftpboot; {{{",
        "",
    ],
)
def test_a_protected_folder_of_nginx_is_fine(tmp_path: Path, text: str) -> None:
    """A password, an address, and a server that serves no files there protect a folder."""
    assert nginx(tmp_path, text) == []


def test_a_folder_without_phones_is_fine(tmp_path: Path) -> None:
    """A web site without files of phones is none of our business."""
    assert nginx(tmp_path, "server { root /var/www; }") == []


def test_hardening_contains_the_lines(tmp_path: Path) -> None:
    """An open folder is one of the findings."""
    (tmp_path / "asterisk.conf").touch()
    nginx(tmp_path, "server { root /tftpboot; }")
    lines = list(hardening_findings(AsteriskFiles(tmp_path), ScriptedConsole(), "ringfence", root=tmp_path))
    assert [line.what for line in lines if line.right is False] == ["hardening: provisioning"]
