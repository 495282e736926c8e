"""Sites as configuration files name them. A real nginx is asked in tests/lab/test_init.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.webservers import Site, find_sites

NGINX = """
user www-data;  # whoever
events { worker_connections 768; }
http {
    log_format main '{ $remote_addr; }';
    include /etc/nginx/conf.d/*.conf;
    include sites-enabled/*;
    server {
        server_name inner.example;
        listen 127.0.0.1:8080;
        location ~ "^/a{2}" { return 200 "};"; }
    }
}
"""
SHOP = """
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    server_name _;
    return 301 https://$host$request_uri;
}
server {
    listen 443 ssl http2;
    listen unix:/run/nginx.sock;
    server_name shop.example www.shop.example *.shop.example ~^x(.+)$;
    ssl_certificate "/etc/ssl/shop.pem";
    ssl_certificate_key /etc/ssl/shop.key;
}
"""
APACHE = """
# comment
Listen 80
IncludeOptional sites-enabled/*.conf
"""
BLOG = """
<VirtualHost *:80>
    ServerName blog.example
    ServerAlias www.blog.example \\
        old.blog.example
</VirtualHost>
<VirtualHost 192.0.2.7:443 [2001:db8::1]:443>
    ServerName https://blog.example:443
    SSLEngine on
    SSLCertificateFile "/etc/ssl/blog.pem"
</VirtualHost>
"""


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_sites_of_nginx_are_found_with_their_names_ports_and_certificates(tmp_path: Path) -> None:
    write(tmp_path, "etc/nginx/nginx.conf", NGINX)
    write(tmp_path, "etc/nginx/sites-enabled/shop", SHOP)
    write(tmp_path, "etc/nginx/conf.d/more.conf", "server { listen 81; }")
    certificate = tmp_path / "etc/ssl/shop.pem"
    assert set(find_sites(tmp_path)) == {
        Site(server="nginx", names=(), address="127.0.0.1", port=81, tls=False),
        Site(server="nginx", names=(), address="127.0.0.1", port=80, tls=False),
        Site(server="nginx", names=(), address="::1", port=80, tls=False),
        Site(
            server="nginx",
            names=("shop.example", "www.shop.example"),
            address="127.0.0.1",
            port=443,
            tls=True,
            certificates=(certificate,),
        ),
        Site(server="nginx", names=("inner.example",), address="127.0.0.1", port=8080, tls=False),
    }


def test_sites_of_apache_are_found(tmp_path: Path) -> None:
    write(tmp_path, "etc/apache2/apache2.conf", APACHE)
    write(tmp_path, "etc/apache2/sites-enabled/blog.conf", BLOG)
    plain, four, six = find_sites(tmp_path)
    assert plain.names == ("blog.example", "www.blog.example", "old.blog.example")
    assert (plain.address, plain.port, plain.tls) == ("127.0.0.1", 80, False)
    assert (four.address, six.address) == ("192.0.2.7", "2001:db8::1")
    assert four.names == six.names == ("blog.example",)
    assert four.certificates == (tmp_path / "etc/ssl/blog.pem",)


def test_where_there_is_no_web_server_there_is_no_site(tmp_path: Path) -> None:
    assert find_sites(tmp_path) == ()


@pytest.mark.parametrize(
    "listen", ["unix:/run/x.sock", "80000", "$port", "shop.example", "[::]", "*:"]
)
def test_what_is_no_address_is_left_out(tmp_path: Path, listen: str) -> None:
    write(tmp_path, "etc/nginx/nginx.conf", f"http {{ server {{ listen {listen}; }} }}")
    assert all(1 <= site.port <= 65535 for site in find_sites(tmp_path))


def test_a_file_that_includes_itself_comes_to_an_end(tmp_path: Path) -> None:
    write(tmp_path, "etc/nginx/nginx.conf", "http { include nginx.conf; server { listen 82; } }")
    write(tmp_path, "etc/apache2/apache2.conf", "Include apache2.conf\nInclude apache2.conf\n")
    assert {site.port for site in find_sites(tmp_path)} == {82}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="{};\"'#\\ \n$<>/httpserverlisten0189.*[]:", max_size=200))
def test_no_file_makes_it_raise(tmp_path: Path, text: str) -> None:
    write(tmp_path, "etc/nginx/nginx.conf", text)
    write(tmp_path, "etc/apache2/apache2.conf", text)
    find_sites(tmp_path)
