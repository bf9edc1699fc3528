%%% The page of dmuc in ejabberd's web admin: rooms, where their links go, and what was saved.
%%%
%%% The web admin frames what a module shows in a page of its own, and lets it give out no script and no
%%% document. So requests below `server/HOST/dmuc/' of a listener that has the web admin come here first.
%%% They are handed on to the web admin, which asks for a password and looks at the access rule as for
%%% each of its pages, and calls the hook of its pages if it is content; and only what the hook has been
%%% called for is answered.
-module(mod_dmuc_page).

-export([hooks/1, global_hooks/0]).
%% Hooks
-export([http_request_handlers/3, webadmin_menu_host/3, webadmin_page_host/3]).
%% Of a listener
-export([process/2]).

-include("xmpp.hrl").
-include("ejabberd_http.hrl").
-include("ejabberd_web_admin.hrl").

-define(PATH, <<"dmuc">>).
%% In the process that serves a request, between the two.
-define(ASKED, {?MODULE, asked}).

-spec hooks(binary()) -> [mod_dmuc:hook()].
hooks(Host) ->
    [{webadmin_menu_host, Host, ?MODULE, webadmin_menu_host, 60},
     {webadmin_page_host, Host, ?MODULE, webadmin_page_host, 60}].

-spec global_hooks() -> [mod_dmuc:hook()].
global_hooks() ->
    [{http_request_handlers, global, ?MODULE, http_request_handlers, 50}].

%%%===================================================================
%%% Hooks
%%%===================================================================

%% Those of a listener that are tried in turn, for this request.
-spec http_request_handlers([tuple()], binary(), #request{}) -> [tuple()].
http_request_handlers(Handlers, _HttpHost, #request{path = Path}) ->
    Admins = [Prefix || Handler <- Handlers, element(2, Handler) == ejabberd_web_admin,
                        Prefix <- [element(1, Handler)], is_page(Prefix, Path)],
    [{Prefix, ?MODULE} || Prefix <- Admins] ++ Handlers.

-spec is_page([binary()], [binary()]) -> boolean().
is_page([Part | Prefix], [Part | Path]) -> is_page(Prefix, Path);
is_page([], [<<"server">>, _Host, ?PATH | _]) -> true;
is_page(_, _) -> false.

-spec webadmin_menu_host([{binary(), binary()}], binary(), binary()) -> [{binary(), binary()}].
webadmin_menu_host(Menu, _Host, _Lang) ->
    Menu ++ [{?PATH, <<"dmuc">>}].

-spec webadmin_page_host([xmlel()], binary(), #request{}) -> [xmlel()] | {stop, [xmlel()]}.
webadmin_page_host(_, Host, #request{path = [?PATH | Name]}) ->
    case get(?ASKED) of
        undefined -> ok;
        _ -> put(?ASKED, {allowed, Host, Name})
    end,
    %% Not seen by anybody.
    {stop, [?XC(<<"p">>, <<"dmuc">>)]};
webadmin_page_host(Page, _Host, _Request) ->
    Page.

%%%===================================================================
%%% Requests
%%%===================================================================
-spec process([binary()], #request{}) -> mod_dmuc_nif:response() | term().
process(Path, #request{method = 'GET', raw_path = Raw} = Request) ->
    case {Path, ends_with_slash(Raw)} of
        {[_, _, _], false} -> moved(Raw);
        _ -> ask(Path, Request)
    end;
process(_Path, _Request) ->
    {405, [{<<"Allow">>, <<"GET">>}], <<"GET only\n">>}.

%% The files are named relative to the page.
-spec moved(binary()) -> mod_dmuc_nif:response().
moved(Raw) ->
    [Path | _] = binary:split(Raw, <<"?">>),
    Last = lists:last(binary:split(Path, <<"/">>, [global])),
    {301, [{<<"Location">>, <<Last/binary, "/">>}], <<>>}.

-spec ends_with_slash(binary()) -> boolean().
ends_with_slash(Raw) ->
    [Path | _] = binary:split(Raw, <<"?">>),
    Path /= <<>> andalso binary:last(Path) == $/.

-spec ask([binary()], #request{}) -> mod_dmuc_nif:response() | term().
ask(Path, #request{q = Query} = Request) ->
    put(?ASKED, asked),
    %% It redirects what does not end with a slash.
    try ejabberd_web_admin:process(Path, Request#request{raw_path = <<"/">>}) of
        Framed ->
            case get(?ASKED) of
                {allowed, Host, Name} -> answer(Host, iolist_to_binary(lists:join($/, Name)), Query);
                %% Its refusal, or its word for a host that it does not know.
                asked when is_tuple(Framed), element(1, Framed) =/= 200 -> Framed;
                asked -> {404, [], <<"Not found\n">>}
            end
    after
        erase(?ASKED)
    end.

-spec answer(binary(), binary(), [{term(), binary()}]) -> mod_dmuc_nif:response().
answer(Host, Name, Query) ->
    case mod_dmuc_nif:page_file(Name) of
        document -> document(Host, Query);
        File -> File
    end.

-spec document(binary(), [{term(), binary()}]) -> mod_dmuc_nif:response().
document(Host, Query) ->
    Value = fun(Key) -> proplists:get_value(Key, Query, <<>>) end,
    case {mod_dmuc_server:host(Host), mod_dmuc_server:links(Host, all)} of
        {{Shared, _, _}, Rows} when is_list(Rows) ->
            mod_dmuc_nif:page_document(Shared, mod_dmuc:now(), Host, <<"../">>,
                                       Value(<<"room">>), Value(<<"filter">>), Rows);
        _ ->
            {503, [], <<"mod_dmuc is not active here\n">>}
    end.
